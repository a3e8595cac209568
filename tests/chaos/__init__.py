"""Random SIGKILLs of any process of a served tree, under the whole mix of operations.

make chaos ROUNDS=20 [DATABASE=postgresql] [SEED=1]
"""
