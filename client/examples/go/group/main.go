// Prints a topic's records as a member of a group. usage: group [BROKER [TOPIC [GROUP [END_AFTER_RECORDS]]]]
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	taffrail "taffrail.dev/examples/taffrail/v1"
)

func argument(index int, otherwise string) string {
	if len(os.Args) > index {
		return os.Args[index]
	}
	return otherwise
}

// A stream that two goroutines send on: records are processed by one, heartbeats are sent by the other.
type member struct {
	taffrail.Groups_ConsumeClient
	sending sync.Mutex
}

func (m *member) send(request *taffrail.ConsumeRequest) {
	m.sending.Lock()
	defer m.sending.Unlock()
	_ = m.Send(request) // A stream that is gone says so where it is read.
}

func (m *member) beat(interval time.Duration) {
	beat := &taffrail.ConsumeRequest{Frame: &taffrail.ConsumeRequest_Heartbeat{Heartbeat: &taffrail.ConsumeHeartbeat{}}}
	for m.Context().Err() == nil {
		time.Sleep(interval)
		m.send(beat)
	}
}

func (m *member) leave() {
	m.send(&taffrail.ConsumeRequest{Frame: &taffrail.ConsumeRequest_Leave{Leave: &taffrail.SessionLeave{}}})
}

func (m *member) commit(id uint64, record *taffrail.StoredRecord, topic string) {
	offset := &taffrail.OffsetCommit{Topic: topic, Partition: record.Partition, Offset: record.Offset + 1}
	commit := &taffrail.ConsumeCommit{Id: id, Offsets: []*taffrail.OffsetCommit{offset}}
	m.send(&taffrail.ConsumeRequest{Frame: &taffrail.ConsumeRequest_Commit{Commit: commit}})
}

// One stream from its start to its end; nil: the member has left. Counts the records that are left down.
func takePart(groups taffrail.GroupsClient, join *taffrail.SessionJoin, left *uint64) error {
	context, end := context.WithCancel(context.Background())
	defer end()
	stream, err := groups.Consume(context, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	m, topic := &member{Groups_ConsumeClient: stream}, join.Subscription.Topics[0]
	m.send(&taffrail.ConsumeRequest{Frame: &taffrail.ConsumeRequest_Open{Open: &taffrail.ConsumeOpen{Join: join}}})
	var beating sync.Once
	for {
		response, err := m.Recv()
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		switch frame := response.Frame.(type) {
		case *taffrail.ConsumeResponse_Joined:
			join.MemberId = frame.Joined.MemberId // Who comes back under it is the same member.
			interval := time.Duration(frame.Joined.HeartbeatIntervalMs) * time.Millisecond
			beating.Do(func() { go m.beat(interval) })
			if *left == 0 { // The last commit was lost with the broker and is another's to make.
				m.leave()
			}
		case *taffrail.ConsumeResponse_Records:
			for _, record := range frame.Records.Records {
				if *left == 0 {
					break
				}
				fmt.Println(record.Partition, record.Offset, string(record.Value))
				if *left--; *left == 0 {
					m.commit(*left, record, topic)
				}
			}
			if *left > 0 { // What is processed is committed: whoever goes on in the group begins behind it.
				m.commit(*left, frame.Records.Records[len(frame.Records.Records)-1], topic)
			}
		case *taffrail.ConsumeResponse_Revoke: // All of it is processed and committed: another member may go on.
			released := &taffrail.ConsumeReleased{Partitions: frame.Revoke.Partitions}
			m.send(&taffrail.ConsumeRequest{Frame: &taffrail.ConsumeRequest_Released{Released: released}})
		case *taffrail.ConsumeResponse_Committed:
			if frame.Committed.Id == 0 {
				m.leave()
			}
		}
	}
}

func main() {
	connection, err := grpc.Dial(argument(1, "localhost:9094"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	left, err := strconv.ParseUint(argument(4, "9223372036854775807"), 10, 64)
	if err != nil {
		log.Fatal(err)
	}
	topics := []string{argument(2, "orders")}
	join := &taffrail.SessionJoin{Group: argument(3, "readers"), Subscription: &taffrail.Subscription{Topics: topics}}
	for {
		err := takePart(taffrail.NewGroupsClient(connection), join, &left)
		if err == nil {
			return
		} else if status.Code(err) != codes.Unavailable {
			log.Fatal(err)
		}
		time.Sleep(time.Second) // A broker that restarts is waited for.
	}
}
