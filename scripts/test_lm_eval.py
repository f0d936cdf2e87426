#!/usr/bin/env python3
"""Runs EleutherAI's evaluation harness against the server and compares its log-probabilities with `blackletter score`.

Needs `pip install 'lm_eval[api]'` and a built program. From the repository root:  python scripts/test_lm_eval.py
"""

import json
import subprocess

from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalCompletionsAPI

from serving import PROGRAM, ROOT, server

CONTEXT, ENDINGS = "Under this", [" Agreement, the tenant", " section shall", " zebra"]


def score(ids):
    text = ",".join(map(str, ids))
    command = [PROGRAM, "score", "--ids", text, "--model", str(ROOT / "models/tiny")]
    return json.loads(subprocess.check_output(command))["token_logprobs"]



class Local(LocalCompletionsAPI):
    """The harness's own client with the model's own tokenizer, which the harness would load with transformers."""

    def tok_encode(self, string, *_, **__):
        if isinstance(string, str):
            return self.ids.setdefault(string, ENCODER.encode(string).ids)
        return [self.tok_encode(s) for s in string]


def main():
    global ENCODER
    from tokenizers import Tokenizer

    ENCODER = Tokenizer.from_file(str(ROOT / "models/tiny/tokenizer.json"))
    with server() as address:
        for batch in (1, 3):
            Local.ids = {}
            model = Local(
                model="tiny", base_url=f"{address}/v1/completions", tokenizer_backend=None, batch_size=batch,
                tokenized_requests=True, num_concurrent=1, max_length=1024,
            )
            requests = []
            for ending in ENDINGS:
                context, whole = ENCODER.encode(CONTEXT).ids, ENCODER.encode(CONTEXT + ending).ids
                requests.append(((CONTEXT, ending), context, whole[len(context):]))
            found = model._loglikelihood_tokens(requests, disable_tqdm=True)
            for (value, greedy), (_, context, ending) in zip(found, requests):
                expected = sum(score(context + ending)[len(context) - 1:])
                assert abs(value - expected) < 1e-3, (value, expected)
                assert isinstance(greedy, bool)
                print(f"batch {batch}: {value:.4f}, score has {expected:.4f}, greedy {greedy}")
        instance = Instance("generate_until", {}, (CONTEXT, {"until": ["."], "max_gen_toks": 16}), 0)
        model = LocalCompletionsAPI(
            model="tiny", base_url=f"{address}/v1/completions", tokenizer_backend=None, tokenized_requests=False, batch_size=1,
        )
        print("generate_until:", model.generate_until([instance], disable_tqdm=True))


if __name__ == "__main__":
    main()
