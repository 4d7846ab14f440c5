from raydistill.diagnose.token_text import escaped, token_text
from raydistill.models.load import load_tokenizer
from raydistill.models.trio import demo_model


def test_what_cannot_be_seen_is_escaped():
    assert escaped("a\n\t\x00é ") == "a\\n\\t\\x00é "


def test_a_token_is_its_text_or_its_name():
    tokenizer = load_tokenizer(demo_model("teacher"))
    for token, place in tokenizer.get_vocab().items():
        assert token_text(tokenizer, place) in (tokenizer.decode([place]), escaped(token))
        assert token_text(tokenizer, place)
    assert token_text(tokenizer, tokenizer.eos_token_id) == tokenizer.eos_token
