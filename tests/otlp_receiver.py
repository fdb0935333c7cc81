#!/usr/bin/env python3
"""An OTLP/HTTP receiver that says what it got: the peer of the exporters' checks.

Decodes with the official generated messages (PyPI `opentelemetry-proto`), knows nothing of Plumbline, and writes one
JSON object per line: {"signal": "listening" | "refused" | "metric" | "log", ...}. `--fail N` answers 503 to the first
N requests of each path, without looking at them.

    otlp_receiver.py [--port PORT] [--fail N] [--out FILE]
"""

import argparse
import base64
import collections
import http.server
import json
import sys

from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs_service
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_service
from opentelemetry.proto.metrics.v1 import metrics_pb2


def value(any_value):
    kind = any_value.WhichOneof("value")
    content = getattr(any_value, kind) if kind else None
    return {"base64": base64.b64encode(content).decode()} if kind == "bytes_value" else content


def attributes(pairs):
    return {pair.key: value(pair.value) for pair in pairs}


def point(one):
    said = {
        "attributes": attributes(one.attributes),
        "start_unix_ns": one.start_time_unix_nano,
        "unix_ns": one.time_unix_nano,
    }
    if isinstance(one, metrics_pb2.HistogramDataPoint):
        said.update(count=one.count, sum=one.sum, counts=list(one.bucket_counts), bounds=list(one.explicit_bounds))
    else:
        said["value"] = getattr(one, one.WhichOneof("value"))
    return said


def metrics(body):
    for of_resource in metrics_service.ExportMetricsServiceRequest.FromString(body).resource_metrics:
        for of_scope in of_resource.scope_metrics:
            for metric in of_scope.metrics:
                kind = metric.WhichOneof("data")
                data = getattr(metric, kind)
                yield {
                    "signal": "metric",
                    "resource": attributes(of_resource.resource.attributes),
                    "scope": of_scope.scope.name,
                    "name": metric.name,
                    "unit": metric.unit,
                    "description": metric.description,
                    "kind": kind,
                    "monotonic": kind == "sum" and data.is_monotonic,
                    "cumulative": getattr(data, "aggregation_temporality", 0)
                    == metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE,
                    "points": [point(one) for one in data.data_points],
                }


def logs(body):
    for of_resource in logs_service.ExportLogsServiceRequest.FromString(body).resource_logs:
        for of_scope in of_resource.scope_logs:
            for record in of_scope.log_records:
                yield {
                    "signal": "log",
                    "resource": attributes(of_resource.resource.attributes),
                    "scope": of_scope.scope.name,
                    "event_name": record.event_name,
                    "unix_ns": record.time_unix_nano,
                    "severity": record.severity_number,
                    "severity_text": record.severity_text,
                    "attributes": attributes(record.attributes),
                    "body": value(record.body),
                }


SIGNALS = {
    "/v1/metrics": (metrics, metrics_service.ExportMetricsServiceResponse),
    "/v1/logs": (logs, logs_service.ExportLogsServiceResponse),
}


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path not in SIGNALS:
            return self.answer(404)
        if self.headers["Content-Type"] != "application/x-protobuf":
            return self.answer(415)
        if self.server.failures[self.path] < self.server.fail:
            self.server.failures[self.path] += 1
            self.server.say({"signal": "refused", "path": self.path, "bytes": len(body)})
            return self.answer(503)
        read, response = SIGNALS[self.path]
        for said in read(body):
            self.server.say(said)
        return self.answer(200, response().SerializeToString())

    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def say(self, said):
        # One write per line: requests of both signals come at the same time.
        self.out.write(json.dumps(said) + "\n")
        self.out.flush()


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--port", type=int, default=0, help="0, the default, is any free one")
    arguments.add_argument("--fail", type=int, default=0, metavar="N", help="requests of each path to answer with 503")
    arguments.add_argument("--out", metavar="FILE", help="where the lines go instead of standard output")
    arguments = arguments.parse_args()
    server = Server(("127.0.0.1", arguments.port), Receiver)
    server.out = open(arguments.out, "a", encoding="utf-8") if arguments.out else sys.stdout
    server.fail, server.failures = arguments.fail, collections.Counter()
    server.say({"signal": "listening", "port": server.server_port})
    server.serve_forever()


if __name__ == "__main__":
    main()
