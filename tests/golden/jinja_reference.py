"""Jinja as transformers configures it for chat templates (utils/chat_template_utils.py), for goldens.

Only what shapes the text is here: the environment, tojson, raise_exception, strftime_now, and an
aware clock: a case carries its time.
"""
import datetime
import json

import jinja2
import jinja2.ext
import jinja2.nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment


class GenerationTag(jinja2.ext.Extension):
    """{% generation %} ... {% endgeneration %}: a block whose text is printed as it is."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_print"), [], [], body).set_lineno(line)

    def _print(self, caller):
        return caller()


def make_environment(now):
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                          sort_keys=sort_keys)

    def strftime_now(pattern):
        return datetime.datetime.fromtimestamp(now, datetime.timezone.utc).replace(tzinfo=None).strftime(pattern)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, jinja2.ext.loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    return environment


def variables_of(case):
    """The variables that the renderer under test defines for a case."""
    return {
        "messages": case.get("messages", []),
        "tools": case.get("tools"),
        "documents": None,
        "add_generation_prompt": case.get("add_generation_prompt", False),
        "bos_token": case.get("bos_token", ""),
        "eos_token": case.get("eos_token", ""),
        **(case.get("variables") or {}),
    }


def render(source, case):
    """Returns (text, None) or (None, "ErrorType: message")."""
    try:
        template = make_environment(case.get("now", 0)).from_string(source)
        return template.render(**variables_of(case)), None
    except Exception as error:  # what a template can raise has no common base
        return None, f"{type(error).__name__}: {error}"
