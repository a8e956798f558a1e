"""A Workflow Run RO-Crate: which workflow, run on what, made which files.

Written with the library `rocrate` after the profiles Process Run Crate and Workflow Run Crate 0.5
(https://w3id.org/ro/wfrun/workflow/0.5): the Snakefile is the main entity, one CreateAction is the
run, its objects are the configuration and the code, its results the files of the study.
"""

import json
import mimetypes
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rocrate.model.computationalworkflow import ComputationalWorkflow
from rocrate.model.contextentity import ContextEntity
from rocrate.rocrate import ROCrate

PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
LICENSE = "https://spdx.org/licenses/MIT"
WORKFLOW = "Snakefile"
# Files that say what was asked for.
CONFIGURATION = ("config.yaml", "config.schema.yaml")


def describe_run(files: Mapping[str, Path], study: str, citation: Mapping[str, Any]) -> str:
    """The metadata of a crate, as JSON-LD.

    Args:
        files: where each file lies, by its path in the crate; results below results/<study>/.
        citation: CITATION.cff (title, version, authors).
    """
    ended = datetime.fromtimestamp(max(_times(files)), UTC).isoformat(timespec="seconds")
    crate = ROCrate()
    crate.name = f"{citation['title']}: study {study}"
    crate.description = (
        f"Code, configuration, lock files and results of the study {study}, without prompts, "
        "completions, weights and activations."
    )
    crate.license = LICENSE
    crate.datePublished = ended
    crate.root_dataset["conformsTo"] = [_profile(crate, *item) for item in PROFILES.items()]
    crate.root_dataset["author"] = _authors(crate, citation)
    entities = _entities(crate, files)
    crate.mainEntity["version"] = str(citation["version"])
    _action(crate, entities, study, ended)
    return json.dumps(crate.metadata.generate(), indent=1, sort_keys=True) + "\n"


def _times(files: Mapping[str, Path]) -> list[float]:
    """When the results were written."""
    results = [path for name, path in files.items() if name.startswith("results/")]
    return [path.stat().st_mtime for path in results or files.values()]


def _profile(crate: ROCrate, identifier: str, name: str) -> ContextEntity:
    version = identifier.rpartition("/")[2]
    properties = {"@type": "CreativeWork", "name": name, "version": version}
    return crate.add(ContextEntity(crate, identifier, properties=properties))


def _authors(crate: ROCrate, citation: Mapping[str, Any]) -> list[ContextEntity]:
    """Authors of the software, as organisations where CITATION.cff gives one name."""
    found = []
    for number, author in enumerate(citation["authors"]):
        kind = "Organization" if "name" in author else "Person"
        name = author.get("name") or f"{author['given-names']} {author['family-names']}"
        identifier = author.get("orcid") or f"#author-{number}"
        properties = {"@type": kind, "name": name}
        found.append(crate.add(ContextEntity(crate, identifier, properties=properties)))
    return found


def _entities(crate: ROCrate, files: Mapping[str, Path]) -> dict[str, Any]:
    """One entity per file; the Snakefile is the workflow."""
    entities = {}
    for name in sorted(files):
        if name == WORKFLOW:
            entities[name] = crate.add_workflow(
                files[name], name, main=True, lang="snakemake", cls=ComputationalWorkflow
            )
            continue
        properties = {"contentSize": str(files[name].stat().st_size)}
        if media := mimetypes.guess_type(name)[0]:
            properties["encodingFormat"] = media
        entities[name] = crate.add_file(files[name], name, properties=properties)
    return entities


def _action(crate: ROCrate, entities: Mapping[str, Any], study: str, ended: str) -> None:
    """The run: instrument, objects, results."""
    of_study = f"results/{study}/"
    asked = [*CONFIGURATION, f"studies/{study}.yaml", f"{of_study}config.yaml"]
    results = [entity for name, entity in entities.items() if name.startswith(of_study)]
    properties = {
        "@type": "CreateAction",
        "name": f"Run of the study {study}",
        "endTime": ended,
        "actionStatus": "http://schema.org/CompletedActionStatus",
    }
    action = crate.add(ContextEntity(crate, f"#run-{study}", properties=properties))
    action["instrument"] = crate.mainEntity
    action["object"] = [entities[name] for name in asked if name in entities]
    action["result"] = results
    crate.root_dataset["mentions"] = [action]
