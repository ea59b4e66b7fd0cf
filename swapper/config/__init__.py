"""The configuration: one YAML file (or a folder of models) to frozen, checked values.

`load` -> Config (needs the disk), `build_registry` -> Registry (needs to know the machine).
"""

from swapper.config.cards import Card, cards_of
from swapper.config.folder import DEMO_FOLDER, demo_config, folder_config, load
from swapper.config.listen import Listen, listen_of, parse_listen
from swapper.config.load import load_config, parse_config
from swapper.config.planning import Planned, budgets_of, build_registry, plan_registry
from swapper.config.problems import Problem
from swapper.config.schema import config_schema
from swapper.config.values import ApiKey, Config, ConfiguredModel

__all__ = [
    "DEMO_FOLDER",
    "ApiKey",
    "Card",
    "Config",
    "ConfiguredModel",
    "Listen",
    "Planned",
    "Problem",
    "budgets_of",
    "build_registry",
    "cards_of",
    "config_schema",
    "demo_config",
    "folder_config",
    "listen_of",
    "load",
    "load_config",
    "parse_config",
    "parse_listen",
    "plan_registry",
]
