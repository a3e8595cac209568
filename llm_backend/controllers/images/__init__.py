"""Images: pictures drawn by an image server or a local model, from a text or another picture; or
relayed.

create.py    the operations
drawings.py  request bodies as drawings, and files of edits
answers.py   drawn pictures as the document's answers and events
"""
