"""Speculative decoding: prompt lookup, a draft model, and how many tokens each one drafts.

speculative_decoding.py  adds drafts to a pass
prompt_lookup_drafter.py drafts of one text by prompt lookup, and their acceptance rates
prompt_lookup.py         earlier repetitions of a text's end
draft_source.py          base of what drafts beside the model
drafter.py               drafts of a draft model
head_drafter.py          drafts of the model's own head
hidden_state_buffer.py   hidden states of the texts that a draft head follows
snapshot_drafts.py       drafts of equal lengths, for models with a recurrent state
draft_planning.py        sequences to draft for, and numbers of tokens
acceptance_rate.py       acceptance rate of drafts
pass_costs.py            cost of passes by their number of tokens
"""
