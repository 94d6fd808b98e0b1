"""Copies recipes/ into the package, as resnet_tutorial/recipes/; everything else about packaging is in pyproject.toml."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithRecipes(build_py):
    """Builds the packages and puts our recipes into them; an editable installation reads them from the checkout."""

    def recipe_copies(self) -> dict[str, str]:
        """Map each copied recipe to its source."""
        found = [path for path in sorted(Path("recipes").rglob("*")) if path.suffix in (".yaml", ".csv")]
        return {str(Path(self.build_lib, "resnet_tutorial", path)): str(path) for path in found}

    def run(self) -> None:
        super().run()
        for copy, source in {} if self.editable_mode else self.recipe_copies().items():
            self.mkpath(str(Path(copy).parent))
            self.copy_file(source, copy)

    def get_source_files(self) -> list[str]:
        return [*super().get_source_files(), *self.recipe_copies().values()]

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), *([] if self.editable_mode else self.recipe_copies())]


setup(cmdclass={"build_py": BuildWithRecipes})
