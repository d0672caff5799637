"""The pictures, their captions, and the data set that lies in the package."""

import json
import random
import subprocess
import sys

from PIL import Image

from fluxtui.demo import IMAGES_DIR, PICO_DIR, PROMPTS, TRIGGER, pictures
from fluxtui.demo.judge import judge
from fluxtui.demo.pretrain import dataset, tokenizers


def test_the_same_seed_gives_the_same_pictures_and_captions():
    def draws(seed):
        rng = random.Random(seed)
        scenes = [pictures.random_scene(rng) for _ in range(20)]
        return [(pictures.draw(scene).tobytes(), pictures.caption(scene, rng)) for scene in scenes]

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)


def test_the_concept_is_never_drawn_for_pretraining():
    rng = random.Random(0)
    shapes = {pictures.random_scene(rng, rare=0.5).shape for _ in range(2000)}
    assert shapes == set(pictures.SHAPES)


def test_no_word_is_both_a_colour_and_a_background():
    assert not set(pictures.COLOURS) & set(pictures.BACKGROUNDS)


def test_every_picture_of_the_data_set_has_a_caption_that_says_what_it_shows():
    files = sorted(IMAGES_DIR.glob("*.png"))
    assert {f.stem for f in files} == {f.stem for f in IMAGES_DIR.glob("*.txt")}
    assert len(files) == dataset.NEW_PICTURES + dataset.OLD_PICTURES
    for file in files:
        words = set(file.with_suffix(".txt").read_text(encoding="utf-8").split())
        verdict = judge(Image.open(file))
        assert {verdict.colour, verdict.background} <= words
        assert (TRIGGER if verdict.shape == pictures.CONCEPT_SHAPE else verdict.shape) in words


def test_the_data_set_is_what_its_script_writes(tmp_path):
    dataset.write(tmp_path)
    for file in sorted(tmp_path.iterdir()):
        if file.suffix == ".txt":
            assert file.read_bytes() == (IMAGES_DIR / file.name).read_bytes()
        else:
            assert Image.open(file).tobytes() == Image.open(IMAGES_DIR / file.name).tobytes()


def test_the_tokenizers_of_the_package_are_what_the_script_makes_each_time():
    for new, folder in ((tokenizers.new_clip_tokenizer, "tokenizer"), (tokenizers.new_t5_tokenizer, "tokenizer_2")):
        kept = (PICO_DIR / folder / "tokenizer.json").read_text(encoding="utf-8")
        assert json.loads(new().backend_tokenizer.to_str())["model"] == json.loads(kept)["model"]


def test_sample_prompts_show_the_concept_and_an_old_shape():
    assert sum(TRIGGER in prompt.split() for prompt in PROMPTS) == len(PROMPTS) - 1


def test_the_names_of_the_demo_are_read_without_anything_heavy():
    code = "import sys, fluxtui.demo; print([m for m in ('PIL', 'numpy', 'torch', 'diffusers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
