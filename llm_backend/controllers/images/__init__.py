"""Images: pictures drawn by an image server, from a text or from another picture, or relayed.

create.py    the operations
drawings.py  request bodies as drawings, and files of edits
answers.py   drawn pictures as the document's answers and events
"""
