"""Items of realtime sessions as input of the model."""

from llm_backend.controllers.realtime.conversation import model_input


def test_a_picture_is_read_by_its_address_alone():
    picture = {"type": "input_image", "image_url": "data:,x", "file_id": "file-1", "detail": None}
    item = {"type": "message", "role": "user", "content": [picture]}

    (read,) = model_input([item])

    assert read["content"] == [{"type": "input_image", "image_url": "data:,x", "detail": "auto"}]
