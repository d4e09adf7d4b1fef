"""Prints all records of a topic; with "follow", also those to come. usage: consume.py [BROKER [TOPIC [follow]]]"""

import sys

import grpc
from taffrail.v1.consumer_pb2 import ReadRequest
from taffrail.v1.consumer_pb2_grpc import ConsumerStub


def main(broker="localhost:9094", topic="orders", follow=""):
    with grpc.insecure_channel(broker) as channel:
        for response in ConsumerStub(channel).Read(ReadRequest(topic=topic, follow=bool(follow))):
            for record in response.records:
                key = record.key.decode() if record.HasField("key") else "(no key)"
                print(f"{record.partition} {record.offset} {key} {record.value.decode()}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
