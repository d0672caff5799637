"""What stands behind a sample prompt, in kohya's letters, is that picture's own; what does not fit is refused in a sentence."""

from __future__ import annotations

import pytest

from fluxtui.persist.errors import UsageError
from fluxtui.persist.settings import keys, recipe
from fluxtui.persist.settings.prompts import SamplePrompt, prompts_of
from fluxtui.persist.settings.spec import DatasetSpec, ModelSpec, SampleSpec, Spec

SPEC = Spec(name="a", id="b", model=ModelSpec(source="pico"), dataset=DatasetSpec(path="demo"))


def test_a_prompt_has_its_own_size_seed_steps_and_guidance_and_the_rest_of_the_table() -> None:
    lines = ["a [trigger] --w 768 --h 512 --d 7 --s 30 --g 2.5", "a street -- at night, low-key --d 3", "  plain  ", "--s 4"]
    sample = recipe.apply(SPEC, {"sample.prompts": lines, "sample.seed": 40, "sample.steps": 9}).sample
    assert prompts_of(sample, "ohwx") == [
        SamplePrompt("a ohwx", 768, 512, 30, 2.5, 7),
        SamplePrompt("a street -- at night, low-key", 1024, 1024, 9, 3.5, 3),
        SamplePrompt("plain", 1024, 1024, 9, 3.5, 42),
        SamplePrompt("", 1024, 1024, 4, 3.5, 43),
    ]
    assert prompts_of(SampleSpec(), "") == []


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("a --w 770", "--w is 770: give a whole number from 16 to 4096, a multiple of 16"),
        ("a --g -1", "--g is -1.0: give a number from 0 to 100"),
        ("a --s many", "--s is 'many': give one number"),
        ("a --d", "--d is 'nothing'"),
        ("a --w 512 in a hat", "the text before all options"),
        ("a --n blurry", "without a negative prompt: take --n out"),
        ("a --ar 16:9", "there is no --ar"),
        ("a --g nan", "--g is nan"),
    ],
)
def test_what_does_not_fit_behind_a_prompt_is_refused_with_what_does(line: str, what: str) -> None:
    with pytest.raises(UsageError) as refused:
        keys.check("sample.prompts", ["fine --d 1", line])
    assert what in str(refused.value)
    assert str(refused.value).startswith("[sample] prompts is ")
