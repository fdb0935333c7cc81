"""A kubelet's pod-resources socket: `v1.PodResourcesLister/List`, served by Google's gRPC.

    pod_resources.py --socket SOCKET --pods FILE

Reads FILE for each answer: a JSON list of `{"namespace", "name", "containers": [{"name", "devices": [{"resource_name",
"device_ids"}], "dynamic_resources": [...]}]}`, with the fields of the messages. Numbers of fields are those of
`k8s.io/kubelet/pkg/apis/podresources/v1/api.proto`, among them some that Plumbline does not read.
"""

import argparse
import concurrent.futures
import json
import pathlib

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

STRING, MESSAGE, INT64 = 9, 11, 3

# Message: field: (number, type or the message that it is of, whether it is repeated).
MESSAGES = {
    "ListPodResourcesRequest": {},
    "ListPodResourcesResponse": {"pod_resources": (1, "PodResources", True)},
    "PodResources": {
        "name": (1, STRING, False),
        "namespace": (2, STRING, False),
        "containers": (3, "ContainerResources", True),
    },
    "ContainerResources": {
        "name": (1, STRING, False),
        "devices": (2, "ContainerDevices", True),
        "cpu_ids": (3, INT64, True),
        "memory": (4, "ContainerMemory", True),
        "dynamic_resources": (5, "DynamicResource", True),
    },
    "ContainerMemory": {"memory_type": (1, STRING, False)},
    "ContainerDevices": {
        "resource_name": (1, STRING, False),
        "device_ids": (2, STRING, True),
        "topology": (3, "TopologyInfo", False),
    },
    "TopologyInfo": {"nodes": (1, "NUMANode", True)},
    "NUMANode": {"ID": (1, INT64, False)},
    "DynamicResource": {
        "claim_name": (2, STRING, False),
        "claim_namespace": (3, STRING, False),
        "claim_resources": (4, "ClaimResource", True),
    },
    "ClaimResource": {
        "cdi_devices": (1, "CDIDevice", True),
        "driver_name": (2, STRING, False),
        "pool_name": (3, STRING, False),
        "device_name": (4, STRING, False),
    },
    "CDIDevice": {"name": (1, STRING, False)},
}


def classes():
    file = descriptor_pb2.FileDescriptorProto(name="podresources.proto", package="v1", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, repeated) in fields.items():
            added = message.field.add(name=field, number=number, label=3 if repeated else 1)
            if isinstance(kind, str):
                added.type, added.type_name = MESSAGE, f".v1.{kind}"
            else:
                added.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"v1.{name}")) for name in MESSAGES}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", required=True)
    parser.add_argument("--pods", type=pathlib.Path, required=True)
    options = parser.parse_args()
    known = classes()

    def answer(_request, _context):
        pods = json.loads(options.pods.read_text())
        return json_format.ParseDict({"pod_resources": pods}, known["ListPodResourcesResponse"]())

    handler = grpc.unary_unary_rpc_method_handler(
        answer,
        request_deserializer=known["ListPodResourcesRequest"].FromString,
        response_serializer=known["ListPodResourcesResponse"].SerializeToString,
    )
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=2))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("v1.PodResourcesLister", {"List": handler}),)
    )
    server.add_insecure_port(f"unix:{options.socket}")
    server.start()
    server.wait_for_termination()


main()
