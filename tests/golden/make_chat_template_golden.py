#!/usr/bin/env python3
"""Makes tests/golden/chat_template/*.json: templates and what jinja2 renders from them.

Usage: make_chat_template_golden.py SMOLLM2_GGUF
The GGUF file is read for its metadata field tokenizer.chat_template (SmolLM2, Apache-2.0).
Needs jinja2 3.1.6 and gguf. A construct is {"name", "template", "text" or "error"}; its input is the
file's "case", or its own.
"""
import json
import pathlib
import sys

import chat_cases
import chat_constructs
import jinja_reference

OUT = pathlib.Path(__file__).parent / "chat_template"


def result_of(source, case):
    text, error = jinja_reference.render(source, case)
    return {"text": text} if error is None else {"error": error}


def smollm2(path):
    import gguf

    field = gguf.GGUFReader(path).fields["tokenizer.chat_template"]
    source = bytes(field.parts[field.data[0]]).decode()
    names = ["user", "user_no_prompt", "system_turns", "system_turns_no_prompt", "tools", "tool_result",
             "reasoning_content", "empty", "wrong_role"]
    cases = {name: chat_cases.CASES[name] for name in names}
    return {"source": "SmolLM2-135M-Instruct, Apache-2.0", "template": source,
            "cases": [{"name": name, "input": case, **result_of(source, case)} for name, case in cases.items()]}


def constructs(entries):
    made = []
    wrong = []
    for name, source in entries:
        result = result_of(source, chat_constructs.CASE)
        must_fail = name.startswith("error: ")
        if ("error" in result) != must_fail:
            wrong.append(f"{name}: {result}")
        made.append({"name": name, "template": source, **result})
    if wrong:
        sys.exit("\n".join(wrong))
    return {"case": chat_constructs.CASE, "constructs": made}


def write(name, value):
    OUT.mkdir(exist_ok=True)
    (OUT / name).write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def main():
    write("smollm2.json", smollm2(sys.argv[1]))
    for name, entries in chat_constructs.FILES.items():
        write(f"{name}.json", constructs(entries))


if __name__ == "__main__":
    main()
