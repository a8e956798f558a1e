"""A hostile checkpoint runs nothing, and what it and its prompts say reaches the paper as text."""

import json
import os
import pickle
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import synthetic_results as synthetic
import torch
import yaml
from conftest import save_tiny_checkpoint
from jinja2.exceptions import SecurityError
from peft import LoraConfig, get_peft_model
from test_latex import DOCUMENT
from test_paper import figure_records, study
from transformers.utils import is_kernels_available

from refusal import chat_templates
from refusal.configuration import check_config
from refusal.errors import InputError
from refusal.generations import completions_table, generate
from refusal.judge_models import add_adapter
from refusal.models import encode_prompts, load_model, load_tokenizer, model_card
from refusal.numbers import collect_numbers
from refusal.paper import compile_pdf, intervention_labels, render
from refusal.reading import judge_of
from refusal.tables.examples import examples_table
from refusal.tables.external_runs import files_table

ROOT = Path(__file__).parents[1]
WORDS = (
    r"\input{/etc/passwd}",
    r"\immediate\write18{touch",
    "<script>alert(1)</script>",
    "$(touch ran)",
    "{__import__('os')}",
    "%&_#^~",
    r"\end{document}",
)
needs_tex = pytest.mark.skipif(shutil.which("latexmk") is None, reason="latexmk is not installed")


class _Runs:
    """What a hostile pickle does when it is read."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A tiny checkpoint; whatever runs in the test would leave `ran` beside it."""
    monkeypatch.chdir(tmp_path)
    yield save_tiny_checkpoint(tmp_path)
    assert not (tmp_path / "ran").exists()


def edit(path: Path, **keys) -> None:
    """Set some keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def refused(action, *arguments, match: str) -> InputError:
    """The error of a refusal: one line that can be printed."""
    with pytest.raises(InputError, match=match) as caught:
        action(*arguments)
    assert str(caught.value).isprintable()
    return caught.value


# --- code ---


@pytest.mark.parametrize("kind", ["llama", "hostile"])
def test_python_in_a_checkpoint_is_not_run(folder, kind):
    (folder / "hostile.py").write_text("import os\nos.mkdir('ran')\n")
    classes = {"AutoConfig": "hostile.C", "AutoModelForCausalLM": "hostile.M"}
    edit(folder / "config.json", model_type=kind, auto_map=classes)
    if kind == "llama":  # known to the library, which takes its own class
        assert load_model(folder).config.model_type == kind
    else:
        refused(load_model, folder, match="cannot be loaded")
    tokenizer = {"tokenizer_class": "Hostile", "auto_map": {"AutoTokenizer": ["hostile.T", None]}}
    edit(folder / "tokenizer_config.json", **tokenizer)
    refused(load_tokenizer, folder, match="the tokenizer cannot be loaded")


def write_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weight": _Runs()}, protocol=2))


def test_pickled_weights_are_refused_unread(folder):
    write_pickle(folder / "pytorch_model.bin")
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    index = {"metadata": {}, "weight_map": {"model.embed_tokens.weight": "pytorch_model.bin"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(load_model, folder, match="cannot be loaded")
    (folder / "other.safetensors").unlink()
    refused(load_model, folder, match=r"no \*.safetensors weights")


def test_adapters_are_neither_unpickled_nor_applied_unseen(folder, tmp_path):
    model = load_model(folder)
    adapter = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "target_modules": ["q_proj"]}
    adapter["base_model_name_or_path"] = "somebody/else"
    (folder / "adapter_config.json").write_text(json.dumps(adapter))
    write_pickle(folder / "adapter_model.bin")
    refused(add_adapter, model, folder, match="no adapter_model.safetensors")
    refused(load_model, folder, match="cannot be loaded")
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))
    adapted.save_pretrained(tmp_path / "adapter")
    shutil.copy(tmp_path / "adapter/adapter_model.safetensors", folder)
    refused(load_model, folder, match="an adapter lies in the checkpoint")


def test_kernels_from_the_hub_are_not_loaded(folder):
    edit(folder / "config.json", _attn_implementation="somebody/kernel")
    refused(load_model, folder, match="cannot be loaded")
    # Were the package installed, a checkpoint could name a kernel, which is code.
    assert not is_kernels_available()


TEMPLATES = {
    "the classes of Python": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals of a function": "{{ cycler.__init__.__globals__.os.mkdir('ran') }}",
    "a format of its own": "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
    "a file": "{% include '/etc/passwd' %}",
    "a range too long": "{% for i in range(10 ** 9) %}{% endfor %}",
    "a message with escapes": "{{ raise_exception('a\n\x1b[2J') }}",
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(save_tiny_checkpoint(tmp_path_factory.mktemp("tokenizer")))


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_a_template_reaches_for_nothing(tokenizer, template, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tokenizer.chat_template = template
    mistake = refused(encode_prompts, tokenizer, ["x"], match="its chat template does not take")
    if "__" in template:
        assert isinstance(mistake.__cause__, SecurityError)
    assert list(tmp_path.iterdir()) == []


def test_a_template_that_does_not_end_is_stopped(tokenizer, monkeypatch):
    monkeypatch.setattr(chat_templates, "SECONDS_PER_PROMPT", 0.3)
    loop = "{% for i in range(99999) %}"
    tokenizer.chat_template = loop * 3 + "{% endfor %}" * 3
    refused(encode_prompts, tokenizer, ["x"], match="it runs for more than 0.3 s")


# --- text ---


def hostile_completions(folder: Path) -> tuple[list[str], dict]:
    """What a model says that knows hostile words alone, and its card."""
    tokenizer = load_tokenizer(folder)
    tokenizer.add_tokens(list(WORDS))
    model = load_model(folder)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    head = model.get_output_embeddings().weight
    with torch.no_grad():
        head[: -len(WORDS)] = 0
        head[-len(WORDS) :].normal_(generator=torch.Generator().manual_seed(0))
    prompts = encode_prompts(tokenizer, WORDS)
    answers = generate(model, prompts, eos_ids=[3], pad_id=0, max_new_tokens=4, max_tokens=4096)
    card = model_card(model, tokenizer, name="m", path=folder, refusal_tokens=[len(tokenizer) - 1])
    return list(completions_table(tokenizer, list(WORDS), answers).completion), card


def squeezed(text: str) -> str:
    """Text without what line breaking adds."""
    return "".join(text.split()).replace("-", "")


@needs_tex
def test_what_a_hostile_model_says_is_printed_as_it_is(folder, tmp_path):
    said, card = hostile_completions(folder)
    assert sum(any(word in text for word in WORDS) for text in said) >= len(said) - 1
    assert card["refusal_token_strings"] == [WORDS[-1]]
    examples = pd.DataFrame({"text": WORDS, "completion": said})
    examples = examples.assign(model=WORDS[0], intervention=WORDS[1])
    files = {word: [{"status": "absent", "file": word}] for word in WORDS}
    source = tmp_path / "page.tex"
    source.write_text(DOCUMENT % (examples_table(examples) + r"\par " + files_table(files)))
    compile_pdf(source, tmp_path / "page.pdf")
    command = ["pdftotext", "-layout", "page.pdf", "-"]
    page = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, check=True).stdout
    assert "root:" not in page and page.count("Completion") == 1
    assert all(page.count(word) >= 1 for word in WORDS), page


def hostile_config(folder: Path) -> dict:
    """A configuration with hostile words in all that the paper quotes of it."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    schema = yaml.safe_load((ROOT / "config.schema.yaml").read_text())
    text = " ".join(WORDS)
    template = {"name": "a", "text": text + "{request}", "opening": text}
    wordings = {"system": text, "templates": [template]}
    hostile = folder / WORDS[3]
    hostile.mkdir()
    (hostile / "config.json").write_text("{}")
    judge = {"path": str(hostile), "prompt": "wildguard", "parse": "wildguard"}
    config |= {"attacks": {"organisms": wordings, "loaded": wordings}, "judges": {"a_b": judge}}
    config["hardware"]["name"] = text
    config["scores"]["models"] = ["a_b"]
    for task in config["capability"]["tasks"]["loaded"]:
        task["task"] = text
    return check_config(config, schema)


def test_nothing_of_a_hostile_study_stands_in_the_paper_unescaped(tmp_path):
    frames = study(synthetic.ONE_MODEL)
    context = {
        "config": hostile_config(tmp_path),
        "cards": [card | {"path": WORDS[0]} for card in frames["cards"]],
        "claims": frames["claims"],
        "labels": intervention_labels(frames["summary"]),
        "figures": figure_records(tmp_path, frames, drawn=False),
        "judge": judge_of(frames["summary"]),
        "planted": None,
    }
    numbers = collect_numbers(frames)
    texts = [
        render(ROOT / "paper", numbers, {**context, "organisms": organisms})[0]
        for organisms in (True, False)
    ]
    whole = "".join(texts)
    assert r"\textbackslash{}input\{/etc/passwd\}" in whole and r"\$(touch ran)" in whole
    assert [word for word in WORDS[:-1] if re.search(r"(?<!\\)" + re.escape(word), whole)] == []
    assert all(text.count(WORDS[-1]) == 1 for text in texts)


# --- LaTeX itself, should a text escape the escaping after all ---


CONFINED = r"""\documentclass{article}\begin{document}
\newread\hostile \openin\hostile=/etc/passwd \ifeof\hostile closed\else open\fi\ 
\openin\hostile=../secret.txt \ifeof\hostile closed\else open\fi\ 
\immediate\write18{touch ran} shell \the\pdfshellescape
\end{document}
"""


@needs_tex
def test_latex_reads_writes_and_runs_nothing_outside(tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "run" / "paper").mkdir(parents=True)
    source = tmp_path / "run" / "paper" / "page.tex"
    shutil.copyfile(tmp_path / "secret.txt", tmp_path / "run" / "secret.txt")
    (source.parent / "latexmkrc").write_text("system('touch ran');\n")
    source.write_text(CONFINED)
    compile_pdf(source, tmp_path / "page.pdf")
    command = ["pdftotext", "page.pdf", "-"]
    page = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, check=True).stdout
    assert page.split()[:4] == ["closed", "closed", "shell", "0"]
    for command in (r"\input{/etc/passwd}", r"\immediate\openout5=../../ran.txt"):
        source.write_text(CONFINED.replace("shell ", command))
        refused(compile_pdf, source, tmp_path / "page.pdf", match="paper: LaTeX stopped")
    assert not list(tmp_path.rglob("ran*"))
