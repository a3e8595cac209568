"""Which models the settings ask for; what cannot be served is one sentence."""

import pytest

from llm_backend.served_models import check_moderation_model
from llm_backend.settings import SettingsError, load_settings


def test_a_moderation_model_is_one_that_is_served():
    settings = load_settings({"moderation_model": "guard"})
    check_moderation_model(settings, {"builtin", "guard"})

    with pytest.raises(SettingsError, match="`guard` is not served"):
        check_moderation_model(settings, {"builtin"})
