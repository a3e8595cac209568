"""Permits: a concurrency limit per upstream that holds for several processes together.

permit_server.py    grants permits, in the parent process
permit_client.py    permits of one API process
permit_messages.py  the messages between them
permit_queue.py     requests that wait for a permit
"""
