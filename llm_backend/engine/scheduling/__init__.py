"""Scheduling: the waiting queue, slots, and the tokens of the next pass.

scheduler.py            plans each pass
slot_cells.py           operations on the cells of the model and of its draft model
waiting_queue.py        which sequence gets the next free slot
prefill_budget.py       limits of prompt tokens in a pass
prefill_chunks.py       chunked prefill: tokens of each prompt in a pass
request_table.py        all requests of a worker
generation_request.py   one request and its answers
scoring_request.py      one request for the logprobs of labels, and the readers of its logits
scoring_validation.py   checks of its command, and its tokens
label_tree.py           the tokens of a question's labels, computed once where labels begin alike
command_validation.py   checks of a command, and its prompt's tokens
prompt_tokens.py        tokenizes a prompt
generated_tokens.py     tokens of recent chats as generated, for prompts that hold their answers
grammar_compilation.py  requests that wait for a grammar
"""
