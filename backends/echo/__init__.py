"""A worker without a model: scripted load time, token rate, memory and crashes.

It answers with what it was told: the last user message of a chat, the prompt of a completion, one token
for each byte. Tests and benchmarks run the whole of swapper over it, and a new engine can start from it.

| option | default | |
|---|---|---|
| `load_s` | 0 | the load takes this long |
| `hang_load` | false | the load never ends |
| `fail_load` | "" | the load fails with this kind, after `load_s`; `exit`: without a word; `bug`: by an exception |
| `memory_bytes` | 0 | host memory that is really taken and touched |
| `first_token_s` | 0 | from a request's turn to its first token |
| `tokens_per_s` | 0 | rate of each sequence; 0: as fast as possible |
| `parallel` | 64 | sequences at once; others wait for their turn |
| `context` | 4096 | longest prompt plus answer, in tokens (bytes) |
| `exit_after_tokens` | 0 | the process dies in the middle of an answer, after so many tokens in all |
| `break_after_tokens` | 0 | the engine fails in the middle of an answer, and says that it is broken |
| `can_sleep` | false | whether `/sleep` and `/wake` exist; asleep, `memory_bytes` are given back |
| `wake_s` | 0 | `/wake` takes this long |
| `fail_sleep` | false | `/sleep` fails |
| `fail_wake` | false | `/wake` fails |
| `stop_s` | 0 | after TERM and draining, ending takes this long |
| `ignore_term` | false | a worker that is ready does not end on TERM: it stops taking requests, no more |
| `embedding_length` | 16 | numbers in an embedding |
"""
