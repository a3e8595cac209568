"""Moderation: a model classifies inputs and outputs, category by category.

operations.py         the operation, and scores of a model
categories.py         categories and their yes/no prompts
moderated_answers.py  the field `moderation` of chats and responses
"""
