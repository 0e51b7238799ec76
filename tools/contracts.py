"""This is about one more kind of import-linter contract: what a module may load, everything that it reaches included.

import-linter's own kinds name what is forbidden; "the standard library and msgspec, nothing else" can only be said
by naming what is allowed.
"""

import sys

import grimp
from importlinter import Contract, ContractCheck, fields, output
from importlinter.application import contract_utils


class LoadsOnly(Contract):
    """The sources, and each module of ours that importing them executes, import only what is allowed.

    Options: `source_modules` (with their descendants), `allowed` (third-party packages beside the standard library),
    `forbidden` (parts of the standard library that are not allowed after all), `ignore_imports` (late imports, as
    "importer -> imported"), `broken_contract_guidance`.
    """

    type_name = "loads_only"

    source_modules = fields.ListField(subfield=fields.ModuleExpressionField())
    allowed = fields.SetField(subfield=fields.StringField(), required=False)
    forbidden = fields.SetField(subfield=fields.StringField(), required=False)
    ignore_imports = fields.SetField(subfield=fields.ImportExpressionField(), required=False)
    broken_contract_guidance = fields.TextField(required=False)

    def check(self, graph: grimp.ImportGraph, verbose: bool) -> ContractCheck:
        """Kept or not; `metadata["chains"]` holds one chain of imports for each thing that is not allowed."""
        removal = contract_utils.remove_ignored_imports_and_report(
            graph=graph,
            ignore_imports=self.ignore_imports,  # type: ignore[arg-type]
            unmatched_alerting=contract_utils.AlertLevel.ERROR,
        )
        ours = {module for module in graph.modules if not graph.is_module_squashed(module)}
        chains: list[tuple[str, ...]] = []
        for source in sorted(self._sources(graph)):
            chains += self._chains(graph, source, ours)
        return ContractCheck(kept=not chains, warnings=list(removal.warnings), ignored_import_count=removal.ignored_import_count, metadata={"chains": chains})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Prints each chain of imports on a line of its own."""
        for chain in check.metadata["chains"]:
            output.print_error("- " + " -> ".join(chain), bold=False)
        output.new_line()
        contract_utils.render_broken_contract_guidance(self.broken_contract_guidance)  # type: ignore[arg-type]

    def _sources(self, graph: grimp.ImportGraph) -> set[str]:
        roots = [expression.expression for expression in self.source_modules]  # type: ignore[attr-defined]
        missing = [root for root in roots if root not in graph.modules]
        if missing:
            raise ValueError(f"source_modules names {', '.join(missing)}, which is not there; take it out of the contract in pyproject.toml")
        return {module for root in roots for module in {root} | graph.find_descendants(root)}

    def _chains(self, graph: grimp.ImportGraph, source: str, ours: set[str]) -> list[tuple[str, ...]]:
        """One shortest way from *source* to each module that it may not load."""
        way: dict[str, tuple[str, ...]] = {source: (source,)}
        queue = [source]
        found: dict[str, tuple[str, ...]] = {}
        for module in queue:
            loads = graph.find_modules_directly_imported_by(module)
            parent = module.rpartition(".")[0]
            for loaded in sorted(loads | ({parent} if parent else set())):
                if loaded not in ours:
                    if not self._may_load(loaded):
                        found.setdefault(loaded, (*way[module], loaded))
                elif loaded not in way:
                    way[loaded] = (*way[module], loaded)
                    queue.append(loaded)
        return [found[name] for name in sorted(found)]

    def _may_load(self, external: str) -> bool:
        top = external.partition(".")[0]
        forbidden, allowed = (option if isinstance(option, set) else set() for option in (self.forbidden, self.allowed))
        return top not in forbidden and (top in sys.stdlib_module_names or top in allowed)
