#!/usr/bin/env python3
"""Validates records (one JSON object per line on standard input) against OCSF 1.8.0.

A peer that shares no code with the daemon: the schemas come from the package ocsf-json-schema, the validator from
jsonschema. The class is looked up by number, because the schema's own name of class 1008 has a typing error.
Needs: ocsf-json-schema, jsonschema. Prints `N valid` and exits 0, or the first mistakes and exits 1.
"""
import json
import sys

import jsonschema
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

schema = OcsfJsonSchemaEmbedded(get_ocsf_schema(version="1.8.0"))
validators = {}
valid = 0
mistakes = []
for number, line in enumerate(sys.stdin, 1):
    event = json.loads(line)
    profiles = sorted(event["metadata"].get("profiles", []))
    kind = (event["class_uid"], tuple(profiles))
    if kind not in validators:
        name = schema.lookup_class_name_from_uid(event["class_uid"])
        validators[kind] = jsonschema.Draft202012Validator(schema.get_class_schema(class_name=name, profiles=profiles))
    found = list(validators[kind].iter_errors(event))
    if found:
        mistakes += [f"record {number} ({kind[0]}) at {list(e.absolute_path)}: {e.message[:300]}" for e in found]
    else:
        valid += 1
for mistake in mistakes[:20]:
    print(mistake)
print(f"{valid} valid, {len(mistakes)} mistakes")
sys.exit(1 if mistakes or not valid else 0)
