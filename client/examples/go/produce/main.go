// Writes lines of standard input as records: KEY:VALUE, or VALUE alone. usage: produce [BROKER [TOPIC]]
package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	taffrail "taffrail.dev/examples/taffrail/v1"
)

func record(line string) *taffrail.Record {
	key, value, keyed := strings.Cut(line, ":")
	if !keyed {
		return &taffrail.Record{Value: []byte(line)}
	}
	return &taffrail.Record{Key: []byte(key), Value: []byte(value)}
}

func argument(index int, otherwise string) string {
	if len(os.Args) > index {
		return os.Args[index]
	}
	return otherwise
}

func main() {
	request := &taffrail.ProduceRequest{Topic: argument(2, "orders")}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		request.Records = append(request.Records, record(lines.Text()))
	}
	connection, err := grpc.Dial(argument(1, "localhost:9094"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	response, err := taffrail.NewProducerClient(connection).Produce(ctx, request)
	if err != nil {
		log.Fatal(err)
	}
	for _, result := range response.Results { // One for each partition that got records.
		fmt.Printf("partition %d: %d from offset %d\n", result.Partition, len(result.RecordIndexes), result.GetAppended().GetBaseOffset())
	}
}
