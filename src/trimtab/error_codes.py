"""The errors that people meet, each with a code, its cause and its fix; docs/errors.md is written from them.

A code is ``KIND/NAME``: the kind is that of the class, and the name is given where the error is raised. A code is never renamed,
since people search for it; one that is no longer raised is removed.
"""

from typing import NamedTuple


class Explained(NamedTuple):
    """Why an error comes, and what to do; each in a sentence or two."""

    cause: str
    fix: str


CODES = {
    "input/unknown-task": Explained(
        "The source is neither a benchmark nor `testbed`, `local:PATH` or `gym:NAME`.",
        "Take a name from `trimtab tasks`; a file of your own is `local:PATH`.",
    ),
    "input/no-bundled-model": Explained(
        "No bundled model has the name after `testbed:`.",
        "Take one of the names in the message.",
    ),
    "input/no-file": Explained(
        "There is no file at the path; relative paths start in the directory where the command runs.",
        "Give the path of a `.jsonl` or `.parquet` file.",
    ),
    "input/not-json": Explained(
        "A line of a `.jsonl` file is damaged, or the file is binary.",
        "Repair or remove the line that the message names.",
    ),
    "input/no-such-field": Explained(
        "No column of the file has one of the names that were looked for.",
        'Name them in the section `[task]`: `fields = {question = "...", answer = "..."}`.',
    ),
    "input/unusable-rows": Explained(
        "Some rows of the file lack a field, or have an empty question or answer, wrong choices, or tests that cannot be read.",
        "Repair or remove the rows; the message gives each one's reason.",
    ),
    "input/repeated-question": Explained(
        "Two problems have the same question, which would leak between the splits.",
        "Remove one of them.",
    ),
    "input/data-changed": Explained(
        "The data differ from those whose digest `task.digest` pins.",
        "Get the pinned version, or pin the new digest.",
    ),
    "input/dataset-unavailable": Explained(
        "The hub cannot be reached, and the data set is not in the cache.",
        "Connect once to fill the cache, or copy the data set and name the folder, as the message says.",
    ),
    "input/unknown-split": Explained(
        "The split is none of train, validation and test.",
        "Name one of these three.",
    ),
    "input/no-problems-in-split": Explained(
        "The evaluation needs problems of a split of which none was asked for.",
        "Ask for some, such as `test=200`.",
    ),
    "input/no-chat-template": Explained(
        "The model's tokenizer has no chat template, as with many base models.",
        'Set `prompt.style = "adaras-plain"`, or add a `chat_template` to its `tokenizer_config.json`.',
    ),
    "input/template-drops-question": Explained(
        "The chat template leaves the question out, so that all problems get one prompt.",
        'Set `prompt.style = "adaras-plain"`, or repair the template.',
    ),
    "input/prompt-too-long": Explained(
        "A prompt and its new tokens do not fit into the engine's context.",
        "Lower `sampling.max_new_tokens`, give shorter prompts, or raise `vllm.max_length` where the model allows it.",
    ),
    "input/no-gym": Explained(
        "A `gym:` task needs the package reasoning-gym.",
        "`pip install 'trimtab[gym]'`",
    ),
    "input/no-plotly": Explained(
        "The HTML report draws with plotly, which is not installed.",
        "`pip install 'trimtab[report]'`",
    ),
    "input/no-peft": Explained(
        "The condition `sft-lora` trains with peft, which is not installed.",
        "`pip install 'trimtab[sft]'`",
    ),
    "input/unknown-intervention": Explained(
        "No intervention has this name.",
        "Take a name from the message, or pass a function.",
    ),
    "input/unknown-criterion": Explained(
        "No criterion has this name.",
        "Take a name from the message, or pass a function.",
    ),
    "input/too-few-eligible": Explained(
        "`k` is larger than the number of neurons that the criterion can rank.",
        "Give a smaller `k`; where none is eligible, another criterion or more traces.",
    ),
    "input/moment-not-recorded": Explained(
        "The criterion reads a moment that the recording lacks.",
        "Add it to `recording.moments` and record again.",
    ),
    "input/neuron-outside": Explained(
        "A layer or an index of the list lies outside the model; the list is probably of another model.",
        "Give a list of this model; layers and indices count from 0.",
    ),
    "input/not-finite-activations": Explained(
        "Activations are NaN or infinite: the model overflows, usually in float16.",
        "Use `--dtype bfloat16` or `float32`.",
    ),
    "input/gate-without-threshold": Explained(
        "The gate gives p(fail), but has no threshold above which it steers.",
        "Choose one on the validation split, as `study.fit_gate()` does, or give one, as the message shows.",
    ),
    "input/gate-scope": Explained(
        "The gate decides after the prompt was read, so it cannot steer the prompt.",
        "Use scope `generated`, or the gate `always`.",
    ),
    "input/export-cannot-express": Explained(
        "The export's format has no place for a gain, a shift, a scope or a gate of this steering.",
        "Choose another target, or leave the part out with `--drop` and let `trimtab verify` measure what that costs.",
    ),
    "input/never-steers": Explained(
        "The strength is 0 or the gate is `never`, so an export would change nothing.",
        "Give another strength or gate.",
    ),
    "input/pickle-refused": Explained(
        "The export for lm-evaluation-harness is a pickle, which runs code when it is opened.",
        "`--allow-pickle`, if you trust where the file comes from.",
    ),
    "input/unknown-results": Explained(
        "No reader of `trimtab compare` knows the format of this file or folder.",
        "Give one of the kinds that the message lists.",
    ),
    "input/averages-only": Explained(
        "The harness's results hold averages alone, and a paired comparison needs every response.",
        "Evaluate again with `--log_samples`.",
    ),
    "input/nothing-in-common": Explained(
        "The two results share no task or no document.",
        "Evaluate both on the same problems.",
    ),
    "input/other-documents": Explained(
        "The same ids stand for other documents in the two results.",
        "Evaluate both on the same version of the data.",
    ),
    "input/several-results": Explained(
        "The results are of several models, metrics or filters.",
        "Choose one with the option that the message names.",
    ),
    "input/steering-not-loaded": Explained(
        "A request names a steering that the server does not hold.",
        "Name one of those that the message lists, or load it.",
    ),
    "input/no-steering-slot": Explained(
        "Every slot of the server holds a steering, or one whose last requests still run.",
        "Unload a steering, wait for the requests that the message names, or start the engine with a larger `max_steerings`.",
    ),
    "input/unknown-file-system": Explained(
        "The URL begins with a scheme that no installed file system has.",
        "Give a folder, or a URL such as `s3://BUCKET/RUN`.",
    ),
    "settings/not-accepted": Explained(
        "A key is unknown, or a value is of the wrong type or out of range.",
        "Correct each key that the message names; it gives the closest known one.",
    ),
    "settings/unreadable": Explained(
        "The settings file is missing or cannot be read.",
        "Check the path.",
    ),
    "settings/no-run": Explained(
        "The folder holds no `run.toml`: it is an artifact, or a folder of something else.",
        "Give the run directory itself, such as `runs/demo` for the artifact `runs/demo/steering`.",
    ),
    "settings/not-evaluated": Explained(
        "The run stopped before its evaluation, so there are no pairs of responses to look at.",
        "Repeat the command that began it, which continues where it stopped; then call `trimtab view`.",
    ),
    "settings/not-toml": Explained(
        "The settings file has a syntax error.",
        "Correct the line that the message names.",
    ),
    "settings/k-beyond-ranking": Explained(
        "`tune.k` asks for more neurons than the ranking keeps.",
        "Raise `ranking.k`.",
    ),
    "settings/imported-run": Explained(
        "A run on imported traces has no problems that this model answers itself.",
        "`--until rank`, then `trimtab import`.",
    ),
    "settings/model-in-memory": Explained(
        "The study was made of a loaded model, which its folder does not hold.",
        "Open it with the model: `Study(model, tokenizer, settings=...)`.",
    ),
    "settings/no-tokenizer": Explained(
        "A loaded model was given without its tokenizer.",
        "`Study(model, tokenizer, task=...)`",
    ),
    "settings/no-validation-problems": Explained(
        "`tune` chooses on the validation split, which is empty.",
        "Ask for `validation=N`.",
    ),
    "settings/other-plan": Explained(
        "The folder holds parts that were computed with other settings.",
        "Run with the old settings, or choose another folder.",
    ),
    "settings/not-a-run": Explained(
        "The folder holds something other than a run; nothing was touched.",
        "Choose another folder.",
    ),
    "settings/measured-differently": Explained(
        "The two results were not measured in the same way, so their difference would prove nothing.",
        "Evaluate both in one way; the message lists what differs.",
    ),
    "settings/no-ray": Explained(
        "The executor `ray` needs the extra of this name.",
        "`pip install 'trimtab[ray]'`, or `--executor local`.",
    ),
    "settings/no-inspect": Explained(
        "The file is a log of Inspect, which is read by inspect_ai.",
        "`pip install 'trimtab[inspect]'`",
    ),
    "settings/engine-option": Explained(
        "An option of vLLM is set under which steering would not act.",
        "Leave the option out, or set it as the message says.",
    ),
    "files/no-artifact": Explained(
        "No folder and no hub repository has the name that was given for a steering.",
        "Give the folder of an artifact, such as `RUN/steering`.",
    ),
    "files/run-given": Explained(
        "A run was given where a steering is needed.",
        "Give `RUN/steering`.",
    ),
    "files/already-there": Explained(
        "The folder already holds an artifact or an export.",
        "`--force` replaces it; or choose another folder.",
    ),
    "files/damaged": Explained(
        "A file differs from its checksum: it was edited, or copied incompletely.",
        "Fetch an unchanged copy, or write it again.",
    ),
    "files/other-version": Explained(
        "A file lacks fields or has others: it was edited, or another version of trimtab wrote it.",
        "Read it with that version, or write it again.",
    ),
    "files/other-result": Explained(
        "A file belongs to a result that was made in another way.",
        "Delete the file that the message names, and run the same command again.",
    ),
    "files/ledger-damaged": Explained(
        "`ledger.jsonl`, which counts how often the test problems were opened, is empty, damaged or was edited.",
        "Put back a copy of it; or move it away, and say in what you report that the count began again at 0.",
    ),
    "files/held-elsewhere": Explained(
        "Another process works on this folder.",
        "Wait until it ends, stop it, or choose another folder.",
    ),
    "files/taken-over": Explained(
        "Another process took the run over, because this one was not heard of for too long.",
        "Let the other one finish; this one writes nothing more.",
    ),
    "files/unwritable": Explained(
        "The disk is full, or the folder may not be written.",
        "Make room, or choose another folder.",
    ),
    "files/no-client": Explained(
        "A URL needs a package that is not installed, such as `gcsfs`.",
        "Run the command in the message.",
    ),
    "model/no-folder": Explained(
        "There is no model folder and no GGUF file at the path.",
        "Give a folder written by `save_pretrained`, or a hub id such as `ORG/NAME`.",
    ),
    "model/cannot-open": Explained(
        "transformers cannot open the model or its tokenizer; the message begins with its reason.",
        "Check the id, download the model while online, or install the package that is named.",
    ),
    "model/no-gguf": Explained(
        "A GGUF file is read with the packages gguf and accelerate, and one of them is not installed.",
        "`pip install 'trimtab[gguf]'`",
    ),
    "model/missing-weights": Explained(
        "The checkpoint lacks weights, usually because a download is incomplete.",
        "Download it again.",
    ),
    "model/no-tokenizer": Explained(
        "The model was saved without its tokenizer.",
        "Save the tokenizer into the same folder.",
    ),
    "model/pickled-weights": Explained(
        "The weights are a pickle that would run code.",
        "Get the checkpoint as safetensors.",
    ),
    "model/no-such-device": Explained(
        "torch does not see the device.",
        "`--device cpu` or `auto`.",
    ),
    "model/too-large": Explained(
        "The model does not fit into the memory of the device.",
        "`--device balanced`, or a smaller dtype.",
    ),
    "model/unknown-architecture": Explained(
        "No FFN could be found beyond doubt in this architecture.",
        "See [Supported models](models.md).",
    ),
    "model/no-key-value-cache": Explained(
        "A recurrent or state-space model keeps no key-value cache.",
        "Use a transformer.",
    ),
    "model/training-mode": Explained(
        "The model is in training mode, where dropout makes each forward pass differ.",
        "`model.eval()`",
    ),
    "model/nan-logits": Explained(
        "The model computes logits that are NaN, usually in float16.",
        "`--dtype float32` or `bfloat16`.",
    ),
    "model/nothing-to-steer": Explained(
        "The steering has no neuron and no direction.",
        "Select one at least.",
    ),
    "model/steered-already": Explained(
        "The model is inside an `attach` block already, and a second one would overlap it.",
        "Leave the first block, or attach the sum of both steerings, `a + b`.",
    ),
    "model/copied-while-steered": Explained(
        "A copy of a steered model would keep its hooks.",
        "Leave the `attach` block, then copy.",
    ),
    "model/another-thread": Explained(
        "Two threads, or two calls of `generate`, ran one attached model at once; its gate and positions are those of one batch.",
        "Run one batch after the other.",
    ),
    "model/hooks-did-not-run": Explained(
        "A fused kernel bypasses the modules at which steering acts, so it would have changed nothing.",
        "`use_kernels=False`, and no other fused MLP.",
    ),
    "model/chunked-prefill": Explained(
        "A forward brought several tokens on top of a cache, as assisted decoding and chunked prefill do.",
        "Switch these off; the message says how a conversation is continued.",
    ),
    "model/prompt-read-before": Explained(
        "The prompt was read before `attach`, so the gate saw nothing.",
        "Run the whole `generate` within the block.",
    ),
    "model/rows-changed": Explained(
        "Rows left the batch after the prefill, and the attachment was not told which.",
        "`attachment.select_rows(rows)`",
    ),
    "model/padded-right": Explained(
        "The batch is padded on the right, so the last column is no prompt token.",
        '`tokenizer.padding_side = "left"`',
    ),
    "model/prompt-lengths": Explained(
        "A forward without a cache holds prompt and response, and `prompt_lengths`, which tells them apart, is missing or wrong.",
        "Attach with `prompt_lengths`, one per row, between 1 and the row's number of tokens; or use the cache.",
    ),
    "model/generate-option": Explained(
        "With this option `generate` handles tokens in a way that the gate and the hooks cannot follow.",
        "Leave the option out.",
    ),
    "model/gate-in-engine": Explained(
        "vLLM runs linear gates on the last prompt token alone.",
        'Fit with `gate.pooling = "last"`, or use the gate `always`.',
    ),
    "model/experts-in-engine": Explained(
        "In vLLM the experts run in one fused kernel, in which no neuron can be reached.",
        "Use a dense model, or export the steering.",
    ),
    "engine/not-installed": Explained(
        "vLLM is not installed.",
        "Run the command in the message; [vLLM](vllm.md#install) has the versions.",
    ),
    "engine/untested-version": Explained(
        "This version of vLLM was not tested with the plugin, so its hooks might silently not steer.",
        "Install a version that the message names.",
    ),
    "engine/cannot-run": Explained(
        "vLLM cannot run the model; the message has its reason.",
        "Follow the reason, or use engine `transformers`.",
    ),
    "mismatch/other-model": Explained(
        "The artifact was made for another model.",
        "Give that model; `--force-model` is for a fine-tune of the same architecture.",
    ),
    "mismatch/other-weights": Explained(
        "The server's model has other weights than the one that the steering was made for.",
        "Serve that model, or set `force_model`.",
    ),
    "mismatch/other-steering": Explained(
        "The export was made of another steering than the one that was given.",
        "Give the artifact that was exported.",
    ),
    "mismatch/other-tokenizer": Explained(
        "The imported token ids are of another tokenizer.",
        "Import the text without its ids.",
    ),
    "data/nothing-to-contrast": Explained(
        "No problem has both a correct and an incorrect trace.",
        "Sample more traces a problem, raise the temperature, or take problems of middling difficulty.",
    ),
    "data/empty-split": Explained(
        "A split that is read holds no problem.",
        "Ask for some, or name the split of each row in a column `split`.",
    ),
    "data/no-problem": Explained(
        "The task has no problem for the counts and domains that were asked for.",
        "Ask for other counts or domains.",
    ),
    "data/too-few-for-gate": Explained(
        "The gate learns from ten failed and ten solved train problems at least.",
        'Add train problems, or take easier or harder ones; or do without a gate: `gate.kind = "always"`.',
    ),
    "data/too-few-mixed": Explained(
        "The criterion compares traces of one problem, and too few problems have both scores.",
        "Sample more traces, or take the criterion `mean-difference`.",
    ),
    "cluster/no-connection": Explained(
        "No Ray cluster answers at the address.",
        "Check `ray status` there, and the address.",
    ),
    "cluster/failed-parts": Explained(
        "Workers could not compute some parts; all others are kept.",
        "Remove the cause that the message names, and run the same command again.",
    ),
    "cluster/no-shared-folder": Explained(
        "The workers wrote to a disk that this machine does not see.",
        "Put the run on a file system that all nodes share.",
    ),
    "sandbox/none": Explained(
        "No sandbox runs on this machine, so programs are not run.",
        "`pip install 'trimtab[sandbox]'`, or the system's `bubblewrap`.",
    ),
    "sandbox/does-not-hold": Explained(
        "In its self-test a program did what the sandbox forbids (the message says what), so no program is run.",
        "Repair or update the backend, or use another machine; [the sandbox](design/sandbox.md) says what each one needs.",
    ),
    "grader/failed": Explained(
        "The process that runs a benchmark's tests failed; no response was graded by it.",
        "Run the command again, and report it if it persists.",
    ),
}
