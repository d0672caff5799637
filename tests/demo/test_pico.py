"""The pipeline that lies in the package: its size, its tokens, and that it draws what it is asked for."""

import pytest

from fluxtui.demo import PICO_DIR, TRIGGER, measure, pictures

MOST_BYTES = 8_000_000


@pytest.fixture(scope="module")
def pipeline():
    return measure.load()


def test_the_folder_is_at_most_eight_megabytes_and_holds_no_pickle():
    files = [path for path in PICO_DIR.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".md"}


def test_every_part_is_of_flux1_dev(pipeline):
    assert pipeline.transformer.config.guidance_embeds
    assert pipeline.transformer.config.num_layers > 0
    assert pipeline.transformer.config.num_single_layers > 0
    assert pipeline.vae.config.latent_channels == 16
    assert pipeline.scheduler.config.use_dynamic_shifting


@pytest.mark.parametrize("name", ["tokenizer", "tokenizer_2"])
def test_every_word_of_the_world_and_the_trigger_is_one_token_of_its_own(pipeline, name):
    tokenizer = getattr(pipeline, name)
    ids = {word: tokenizer(word, add_special_tokens=False).input_ids for word in (*pictures.WORDS, TRIGGER)}
    assert {len(found) for found in ids.values()} == {1}
    assert len({found[0] for found in ids.values()}) == len(ids)


@pytest.mark.parametrize("name", ["tokenizer", "tokenizer_2"])
@pytest.mark.parametrize("text", ["", "An astronaut's café, 日本 🎉", "\t\n", "word " * 200])
def test_any_text_becomes_tokens_of_the_full_length(pipeline, name, text):
    tokenizer = getattr(pipeline, name)
    length = tokenizer.model_max_length
    ids = tokenizer(text, padding="max_length", max_length=length, truncation=True).input_ids
    assert len(ids) == length
    assert max(ids) < len(tokenizer)


def test_the_base_draws_what_64_prompts_ask_for_and_does_not_know_the_concept(pipeline):
    figures = measure.measure(pipeline)
    assert figures.old.shape >= 0.92
    assert figures.old.colour >= 0.95
    assert figures.old.background >= 0.95
    assert figures.old.all_three >= 0.9
    assert figures.concept <= 0.03


def test_the_same_seed_gives_the_same_picture(pipeline):
    prompts = [measure.prompt(scene) for scene in measure.scenes(2)]
    first, second = (measure.draw(pipeline, prompts, steps=4) for _ in range(2))
    assert [picture.tobytes() for picture in first] == [picture.tobytes() for picture in second]
