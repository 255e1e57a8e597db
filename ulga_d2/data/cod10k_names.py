"""What COD10K's file names say: camouflaged or not, and which of 69 sub-classes.

Source: the release's Readme, whose spelling ("reccoon") is kept. Names of images without
camouflage follow several patterns, so nothing but their start is read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

FOREGROUND = ("foreground",)
# By number from 1.
SUB_CLASSES = tuple(
    """batFish clownFish crab crocodile crocodileFish fish flounder frogFish ghostPipefish
    leafySeaDragon octopus pagurian pipefish scorpionFish seaHorse shrimp slug starFish stingaree
    turtle ant bug cat caterpillar centipede chameleon cheetah deer dog duck gecko giraffe grouse
    human kangaroo leopard lion lizard monkey rabbit reccoon sciuridae sheep snake spider
    stickInsect tiger wolf worm bat bee beetle bird bittern butterfly cicada dragonfly frogmouth
    grasshopper heron katydid mantis mockingbird moth owl owlfly frog toad other""".split()
)
_CAMOUFLAGED = re.compile(r"COD10K-CAM-\d+-[A-Za-z]+-(\d+)-([A-Za-z]+)-\d+", re.IGNORECASE)
_OTHER = re.compile(r"COD10K-NonCAM-.+", re.IGNORECASE)


@dataclass(frozen=True)
class Name:
    """What a file's name says.

    Attributes:
        is_camouflaged: whether the image shows something camouflaged.
        number: of the sub-class, from 1; 0 without camouflage.
        spelling: of the sub-class, as in the name; "" without camouflage.
    """

    is_camouflaged: bool
    number: int = 0
    spelling: str = ""

    def fits_its_number(self) -> bool:
        """Return whether the spelling is that of the number's sub-class, in any case."""
        return SUB_CLASSES[self.number - 1].lower() == self.spelling.lower()


def parse_name(stem: str) -> Name | None:
    """Return what a file name (without suffix) says; None where it is no name of the release."""
    found = _CAMOUFLAGED.fullmatch(stem)
    if found and 1 <= int(found[1]) <= len(SUB_CLASSES):
        return Name(True, int(found[1]), found[2])
    return Name(False) if _OTHER.fullmatch(stem) else None
