"""The JSON Schema of policies, judged by jsonschema: it takes every shipped policy, and refuses what the checker does.

usage: policy_schema.py SCHEMA DIRECTORY
"""

import copy
import json
import pathlib
import sys

import jsonschema
import yaml


def mutations(policy):
    """Mistakes that an editor should underline, each with its name."""
    rule = policy["spec"]["rules"][0]
    kind = next(iter(rule["match"]))

    def broken(name, change):
        other = copy.deepcopy(policy)
        change(other["spec"]["rules"][0], other)
        return name, other

    yield broken("an unknown field of a rule", lambda rule, _: rule.update(severty="high"))
    yield broken("a rule without a match", lambda rule, _: rule.pop("match"))
    yield broken("an unknown effect", lambda rule, _: rule.update(effect="block"))
    yield broken("a match of nothing", lambda rule, _: rule.update(match={}))
    yield broken("two kinds of objects", lambda rule, _: rule["match"].update(memory={"how": "ptrace"}, local={"name": "/x"}))
    yield broken("an unknown field of the object", lambda rule, _: rule["match"][kind].update(wach=["/m"]))
    yield broken("another version", lambda _, policy: policy.update(apiVersion="plumbline/v2"))
    yield broken("a name with capitals", lambda _, policy: policy["metadata"].update(name="Weights"))
    yield broken("a uid that is none", lambda rule, _: rule.update(subject={"uid": -1}))
    yield broken("a test without an expectation", lambda _, policy: policy["tests"][0].pop("expect"))


def main():
    schema = json.loads(pathlib.Path(sys.argv[1]).read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    validator = jsonschema.Draft7Validator(schema)
    policies = 0
    for file in sorted(pathlib.Path(sys.argv[2]).glob("*.yaml")):
        document = yaml.safe_load(file.read_text())
        for error in validator.iter_errors(document):
            sys.exit(f"{file.name}: {error.json_path}: {error.message}")
        if document["kind"] != "Policy":
            continue
        policies += 1
        for name, other in mutations(document):
            if validator.is_valid(other):
                sys.exit(f"{file.name}: {name} is taken")
    if policies < 12:
        sys.exit(f"only {policies} policies were looked at")
    print(f"{policies} policies")


main()
