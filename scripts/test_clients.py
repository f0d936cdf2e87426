#!/usr/bin/env python3
"""Runs clients of the OpenAI API, unchanged, against the server: the official one, and the Hugging Face Hub's.

Needs `pip install openai huggingface_hub jsonschema` and a built program. From the repository root:  python scripts/test_clients.py
"""

import json
import pathlib
import tempfile

import huggingface_hub
import jsonschema
import openai

from serving import server

SCHEMA = {
    "type": "object",
    "properties": {"party": {"type": "string"}, "year": {"type": "integer", "minimum": 1900, "maximum": 2100}},
    "required": ["party", "year"],
    "additionalProperties": False,
}
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "When is the hearing?"}]


def check_openai(address, key):
    client = openai.OpenAI(base_url=f"{address}/v1", api_key=key)
    (model,) = [m.id for m in client.models.list()]
    assert client.models.retrieve(model).id == model

    options = dict(model=model, prompt=["Under this", "The court"], max_tokens=24, n=2, seed=7, temperature=0.8, logprobs=3)
    whole = client.completions.create(**options)
    assert [c.index for c in whole.choices] == [0, 1, 2, 3] and whole.usage.total_tokens > 0
    assert client.completions.create(**options).choices == whole.choices, "the same seed gives the same answer"
    pieces = {}
    usage = None
    for chunk in client.completions.create(**options, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            pieces[choice.index] = pieces.get(choice.index, "") + choice.text
    assert [pieces[i] for i in range(4)] == [c.text for c in whole.choices]
    assert usage == whole.usage

    options = dict(model=model, messages=MESSAGES, max_completion_tokens=24, seed=3, logprobs=True, top_logprobs=2)
    whole = client.chat.completions.create(**options)
    assert whole.choices[0].message.role == "assistant" and len(whole.choices[0].logprobs.content[0].top_logprobs) == 2
    stream = client.chat.completions.create(**options, stream=True)
    text = "".join(c.delta.content or "" for chunk in stream for c in chunk.choices)
    assert text == whole.choices[0].message.content

    format = {"type": "json_schema", "json_schema": {"name": "fact", "schema": SCHEMA, "strict": True}}
    answer = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=60, temperature=2, response_format=format)
    jsonschema.validate(json.loads(answer.choices[0].message.content), SCHEMA)

    for wrong, kind in [
        (dict(model="gpt-4", prompt="a"), openai.NotFoundError),
        (dict(model=model, prompt="a", temperature=9), openai.BadRequestError),
        (dict(model=model, prompt="a", suffix="b"), openai.BadRequestError),
    ]:
        try:
            client.completions.create(**wrong)
            raise SystemExit(f"{wrong} was not refused")
        except kind as error:
            assert error.body["message"] and error.type == "invalid_request_error", error
    try:
        openai.OpenAI(base_url=f"{address}/v1", api_key="wrong", max_retries=0).models.list()
        raise SystemExit("a wrong key was let in")
    except openai.AuthenticationError as error:
        assert error.code == "invalid_api_key"
    print("openai", openai.__version__, "works")
    return model


def check_hub(address, key, model):
    client = huggingface_hub.InferenceClient(base_url=f"{address}/v1", api_key=key)
    # Where none is named, this client names a model "dummy".
    whole = client.chat_completion(MESSAGES, model=model, max_tokens=24, seed=3)
    stream = client.chat_completion(MESSAGES, model=model, max_tokens=24, seed=3, stream=True)
    text = "".join(c.delta.content or "" for chunk in stream for c in chunk.choices)
    assert text == whole.choices[0].message.content
    format = {"type": "json_schema", "json_schema": {"name": "fact", "schema": SCHEMA}}
    answer = client.chat_completion(MESSAGES, model=model, max_tokens=60, temperature=2, response_format=format)
    jsonschema.validate(json.loads(answer.choices[0].message.content), SCHEMA)
    print("huggingface_hub", huggingface_hub.__version__, "works")


def main():
    with tempfile.TemporaryDirectory() as folder:
        keys = pathlib.Path(folder) / "keys"
        keys.write_text("# one a line\nthe-key\n")
        with server("--api-key-file", str(keys)) as address:
            model = check_openai(address, "the-key")
            check_hub(address, "the-key", model)


if __name__ == "__main__":
    main()
