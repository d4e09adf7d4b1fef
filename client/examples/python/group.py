"""Prints a topic's records as a member of a group. usage: group.py [BROKER [TOPIC [GROUP [END_AFTER_RECORDS]]]]"""

import queue
import sys
import time

import grpc
from taffrail.v1 import groups_pb2 as v1
from taffrail.v1.groups_pb2_grpc import GroupsStub


def frames(to_go, interval):  # gRPC runs this in a thread of its own: heartbeats go on while records are processed.
    while True:
        try:
            yield to_go.get(timeout=interval[0])
        except queue.Empty:
            yield v1.ConsumeRequest(heartbeat=v1.ConsumeHeartbeat())


def main(broker="localhost:9094", topic="orders", group="readers", limit=sys.maxsize):
    left, interval = int(limit), [3.0]
    member = v1.SessionJoin(group=group, subscription=v1.Subscription(topics=[topic]))
    with grpc.insecure_channel(broker) as channel:
        while True:
            (to_go := queue.Queue()).put(v1.ConsumeRequest(open=v1.ConsumeOpen(join=member)))
            try:
                for response in GroupsStub(channel).Consume(frames(to_go, interval), wait_for_ready=True):
                    if response.HasField("joined"):
                        interval[0] = response.joined.heartbeat_interval_ms / 1000
                        member.member_id = response.joined.member_id  # Who comes back under it is the same member.
                    elif response.HasField("records") and left:
                        for record in response.records.records[:left]:
                            print(f"{record.partition} {record.offset} {record.value.decode()}", flush=True)
                            left -= 1  # What is processed is committed: whoever goes on in the group begins behind it.
                        done = v1.OffsetCommit(topic=topic, partition=record.partition, offset=record.offset + 1)
                        to_go.put(v1.ConsumeRequest(commit=v1.ConsumeCommit(id=left, offsets=[done])))
                    elif response.HasField("revoke"):  # All of it is processed and committed: another member may go on.
                        to_go.put(v1.ConsumeRequest(released=v1.ConsumeReleased(partitions=response.revoke.partitions)))
                    elif not left:  # The last commit is answered, or was lost with the broker and is another's to make.
                        to_go.put(v1.ConsumeRequest(leave=v1.SessionLeave()))
                return
            except grpc.RpcError as error:  # A broker that restarts is waited for.
                if error.code() != grpc.StatusCode.UNAVAILABLE:
                    raise
                time.sleep(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
