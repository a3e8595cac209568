"""Stored chats: values, rows and operations."""
