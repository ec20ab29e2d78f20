"""Bounds what one test case makes the server do; what makes a case valid or not stays as it is."""

import json

import schemathesis

MAX_BODY_CHARACTERS = 1_000_000
MAX_TOKENS = 4
MAX_CHOICES = 2
# The fields that say how much is written, by path; of Ollama's they lie in "options".
LIMITS = {
    "/v1/chat/completions": "max_tokens",
    "/v1/completions": "max_tokens",
    "/v1/responses": "max_output_tokens",
    "/v1/messages": "max_tokens",
    "/api/chat": "num_predict",
    "/api/generate": "num_predict",
}
# The largest valid ones.
LARGEST = {**dict.fromkeys([*LIMITS.values(), "max_completion_tokens"], 2**24), "n": 64}
# Where a body without the field is wrong.
REQUIRED = {"/v1/messages"}


@schemathesis.hook
def filter_case(context, case):
    """Leaves out the longest lists with an item too many: 130 MB of JSON, of which 8 are read."""
    if not isinstance(case.body, (dict, list)):
        return True
    size = 0
    for piece in json.JSONEncoder().iterencode(case.body):
        size += len(piece)
        if size > MAX_BODY_CHARACTERS:
            return False
    return True


@schemathesis.hook
def before_call(context, case, kwargs):
    path, body = case.path, case.body
    if not isinstance(body, dict):
        return
    # Any text is a valid name, and all but one are 404: nothing behind the name would be tried.
    if isinstance(body.get("model"), str) and path != "/api/show":
        del body["model"]
    if path not in LIMITS:
        return
    fields = body
    if path.startswith("/api/"):
        if body.get("options") is None:
            body["options"] = {}
        fields = body["options"]
        if not isinstance(fields, dict):
            return
    bound(fields, LIMITS[path], MAX_TOKENS, path in REQUIRED)
    bound(body, "n", MAX_CHOICES, True)
    bound(body, "max_completion_tokens", MAX_TOKENS, True)


def bound(fields, name, most, is_left_out):
    """Lowers a valid number, and puts `most` where none is unless it is to be left out."""
    value = fields.get(name)
    if value is None and not is_left_out:
        fields[name] = most
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if is_whole and (most < value <= LARGEST[name] or (name == "num_predict" and -3 < value < 0)):
        fields[name] = most
