// Prints all records of a topic; with "follow", also those to come. usage: consume [BROKER [TOPIC [follow]]]
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	taffrail "taffrail.dev/examples/taffrail/v1"
)

func argument(index int, otherwise string) string {
	if len(os.Args) > index {
		return os.Args[index]
	}
	return otherwise
}

func main() {
	connection, err := grpc.Dial(argument(1, "localhost:9094"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	request := &taffrail.ReadRequest{Topic: argument(2, "orders"), Follow: argument(3, "") != ""}
	stream, err := taffrail.NewConsumerClient(connection).Read(context.Background(), request)
	for err == nil {
		var response *taffrail.ReadResponse
		response, err = stream.Recv()
		for _, record := range response.GetRecords() {
			key := "(no key)"
			if record.Key != nil { // Null is not the same as empty.
				key = string(record.Key)
			}
			fmt.Println(record.Partition, record.Offset, key, string(record.Value))
		}
	}
	if err != io.EOF {
		log.Fatal(err)
	}
}
