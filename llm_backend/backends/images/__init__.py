"""Images: drawn by local models and by image servers.

image_models.py   models that draw, of this machine and of image servers
image_request.py  the images that a request asks for, and those that it gets
local_images.py   images drawn by local models
image_servers.py  image servers: requests, previews, interruptions
sdapi.py          their wire format, `/sdapi/v1`
image_files.py    sources, masks and formats
"""
