"""Chat templates with what those of real models contain, and conversations that reach into each corner of them.

A case: the template, the turns before the answer, the answer, and what else the template is given.
"""

MARKUP = ("<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>", "<|turn|>", "<|over|>")

TEMPLATES = {
    "default system": (
        "{% if messages[0].role != 'system' %}<|im_start|>system\nHelp.<|im_end|>\n{% endif %}"
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "no system role, an end of its own": (
        "<bos>{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role here') }}{% endif %}"
        "{% for m in messages %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
        "<start_of_turn>{{ role }}\n{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
        "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
    ),
    "strict alternation": (
        "{{ bos_token }}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('user and assistant must take turns') }}{% endif %}"
        "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}{{ eos_token }}{% endif %}"
        "{% endfor %}"
    ),
    "trim": (
        "<bos>{% for m in messages %}<|turn|>{{ m.role }}<|turn|>\n\n{{ m.content | trim }}<|over|>{% endfor %}"
        "{% if add_generation_prompt %}<|turn|>assistant<|turn|>\n\n{% endif %}"
    ),
    "think block": (
        "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}"
        "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' %}{% if m.reasoning_content is defined %}{% set thought = m.reasoning_content %}"
        "{% set said = m.content %}{% elif '</think>' in m.content %}"
        "{% set thought = m.content.split('</think>')[0].split('<think>')[-1] %}"
        "{% set said = m.content.split('</think>')[-1].lstrip('\n') %}"
        "{% else %}{% set thought = '' %}{% set said = m.content %}{% endif %}"
        "{% if loop.index0 > ns.last %}<think>\n{{ thought.strip('\n') }}\n</think>\n\n{% endif %}{{ said }}"
        "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n"
        "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
    ),
    "tools": (
        "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
        "{% for m in messages %}{% if m.role == 'tool' %}<|im_start|>user\n<tool_response>{{ m.content }}"
        "</tool_response><|im_end|>\n{% else %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}"
        "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function.name }}: {{ c.function.arguments | tojson }}"
        "</tool_call>{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "date": (
        "<|im_start|>system\nToday is {{ strftime_now('%d %b %Y') }}.<|im_end|>\n"
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "nulls": (
        "{% for m in messages %}<|turn|>{{ m.role }}{% if m.name is defined and m.name is not none %} ({{ m.name }})"
        "{% endif %}{{ '\n' }}{% if m.content %}{{ m.content }}{% endif %}<|over|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
    ),
    "an end after a line": (
        "{% for m in messages %}<|turn|>{{ m.role }}\n{{ m.content }}\n<eos>\n{% endfor %}"
        "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
    ),
    "generation marker": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "no end": (
        "{% for m in messages %}### {{ m.role | capitalize }}:\n{{ m.content }}\n\n{% endfor %}"
        "{% if add_generation_prompt %}### Assistant:\n{% endif %}"
    ),
}


def say(role, content, **more):
    return {"role": role, "content": content, **more}


Q, A, TALK = say("user", "What is 2+2?"), say("assistant", "It is 4."), [say("user", "Hi "), say("assistant", " Yo")]
CALL = [{"type": "function", "function": {"name": "add", "arguments": {"x": 2, "y": 2}}}]
TOOL = {"type": "function", "function": {"name": "add", "description": "x + y <z>", "parameters": {}}}

CASES = [
    *((name, [Q], A, {}) for name in TEMPLATES),
    *((name, [*TALK, Q], say("assistant", "  Two lines:\n4 "), {}) for name in TEMPLATES),
    ("default system", [say("system", "Be terse."), Q], A, {}),
    ("think block", [Q], say("assistant", "4", reasoning_content="2 and 2"), {}),
    ("think block", [Q], say("assistant", "<think>\n2 and 2\n</think>\n\n4"), {}),
    ("think block", [Q, say("assistant", "<think>\nhm\n</think>\n\nFour"), Q], A, {}),
    ("think block", [Q], A, {"enable_thinking": False}),
    ("tools", [Q], say("assistant", "", tool_calls=CALL), {"tools": [TOOL]}),
    ("tools", [Q, say("assistant", "Let me see", tool_calls=CALL), say("tool", "4")], A, {"tools": [TOOL]}),
]
REFUSED = [
    ("no system role, an end of its own", [say("system", "Be terse."), Q], "no system role here"),
    ("strict alternation", [Q, Q], "must take turns"),
]
