"""Conversations that chat templates are rendered with."""

NOW = 1767225599  # 2025-12-31 23:59:59 UTC

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city, now \"or\" later.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Name of the city"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                "days": {"type": "integer", "default": 1},
                "exact": {"type": "boolean"},
                "places": {"type": "array", "items": {"type": "string"}},
            },
            "required": ["city"],
        },
    },
}
CLOCK = {
    "type": "function",
    "function": {"name": "clock", "description": "Tells the time.",
                 "parameters": {"type": "object", "properties": {}}},
}

SYSTEM = {"role": "system", "content": "You are a terse assistant.  "}
USER = {"role": "user", "content": " What's <b>up</b> & \"where\"?\nZürich, 東京 😀 "}
ASSISTANT = {"role": "assistant", "content": "Nothing.\n"}
USER_AGAIN = {"role": "user", "content": "And now? <|im_end|><|eot_id|>"}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"id": "call12345", "type": "function",
                    "function": {"name": "get_weather",
                                 "arguments": {"city": "Zürich", "days": 3, "exact": True,
                                               "places": ["a", "b"], "ratio": 0.5, "none": None}}}],
}
CALL_NULL = {**CALL, "content": None}
CALL_TEXT = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "call12345", "type": "function",
                    "function": {"name": "clock", "arguments": "{\"zone\": \"UTC\"}"}}],
}
RESULT = {"role": "tool", "name": "get_weather", "tool_call_id": "call12345",
          "content": "{\"degrees\": 21}"}
THINKING = {"role": "assistant", "content": "<think>\nLet me see.\n</think>\n\nFine.",
            }
REASONED = {"role": "assistant", "content": "Fine.", "reasoning_content": "Let me see."}
PARTS = {"role": "user", "content": [{"type": "text", "text": "First part."},
                                     {"type": "text", "text": "Second part."}]}

_CASES = {
    "user": {"messages": [USER], "add_generation_prompt": True},
    "user_no_prompt": {"messages": [USER]},
    "system_turns": {"messages": [SYSTEM, USER, ASSISTANT, USER_AGAIN], "add_generation_prompt": True},
    "system_turns_no_prompt": {"messages": [SYSTEM, USER, ASSISTANT, USER_AGAIN, ASSISTANT]},
    "tools": {"messages": [SYSTEM, USER], "tools": [WEATHER, CLOCK], "add_generation_prompt": True},
    "tools_no_system": {"messages": [USER], "tools": [WEATHER], "add_generation_prompt": True},
    "tool_call": {"messages": [USER, CALL], "tools": [WEATHER]},
    "tool_result": {"messages": [SYSTEM, USER, CALL, RESULT], "tools": [WEATHER, CLOCK],
                    "add_generation_prompt": True},
    "tool_result_null_content": {"messages": [USER, CALL_NULL, RESULT, ASSISTANT, USER_AGAIN],
                                 "tools": [WEATHER], "add_generation_prompt": True},
    "tool_call_text_arguments": {"messages": [USER, CALL_TEXT, RESULT], "tools": [CLOCK],
                                 "add_generation_prompt": True},
    "thinking_text": {"messages": [USER, THINKING, USER_AGAIN], "add_generation_prompt": True},
    "reasoning_content": {"messages": [USER, REASONED, USER_AGAIN], "add_generation_prompt": True},
    "reasoning_last": {"messages": [USER, REASONED]},
    "thinking_on": {"messages": [SYSTEM, USER], "add_generation_prompt": True,
                    "variables": {"enable_thinking": True, "thinking": True}},
    "thinking_off": {"messages": [SYSTEM, USER], "add_generation_prompt": True,
                     "variables": {"enable_thinking": False, "thinking": False}},
    "parts": {"messages": [PARTS], "add_generation_prompt": True},
    "empty": {"messages": [], "add_generation_prompt": True},
    "wrong_role": {"messages": [{"role": "stranger", "content": "?"}, USER]},
    "two_users": {"messages": [USER, USER_AGAIN], "add_generation_prompt": True},
}

CASES = {name: {"now": NOW, "bos_token": "<s>", "eos_token": "</s>", **case}
         for name, case in _CASES.items()}
