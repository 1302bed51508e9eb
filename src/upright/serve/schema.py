"""What the JSON endpoints return."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Guess(BaseModel):
    """One class and its probability."""

    label: str = Field(description="Name of the class, or its number where it has none.")
    number: int
    probability: float = Field(description="Softmax of the model's scores.")


class Thing(BaseModel):
    """One thing that was found on the picture, in pixels of the turned picture, x right, y down."""

    label: str
    number: int
    score: float
    colour: str = Field(description="The colour in which it is drawn, #rrggbb.")
    box: tuple[float, float, float, float] = Field(description="Left, top, right, bottom.")
    points: list[tuple[float, float]] = Field(default=[], description="Key points that are seen: x, y.")


class Region(BaseModel):
    """What a colour of the mask means."""

    label: str
    number: int
    colour: str = Field(description="#rrggbb")
    share: float = Field(description="Share of the pixels that the model saw.")


class Mask(BaseModel):
    """Which pixels belong to what."""

    picture: str = Field(description="Data URL of a PNG, transparent where there is nothing.")
    box: tuple[float, float, float, float] = Field(
        description="Where it lies on the turned picture: left, top, right, bottom in pixels."
    )
    regions: list[Region] = Field(description="Largest first.")


class Reading(BaseModel):
    """What a model says of a picture, in the frame of that picture."""

    valid: bool = Field(description="Whether its scores are numbers.")
    top: list[Guess] = Field(default=[], description="The likeliest classes, of classifiers.")
    things: list[Thing] = Field(default=[], description="Boxes and key points, of detectors.")
    mask: Mask | None = Field(default=None, description="Of segmenters and of detectors that give masks.")
    passes: int = Field(description="How many times the model ran.")
    milliseconds: float = Field(description="How long that took, the search for the pose included.")


class PoseShare(BaseModel):
    """One pose and its probability."""

    degrees: float
    reflected: bool
    probability: float


class PoseReading(BaseModel):
    """How the picture lies: flipped left-right if `reflected`, then turned counter-clockwise."""

    degrees: float
    reflected: bool
    confidence: float = Field(description="Probability of that pose.")
    tied: bool = Field(description="Whether another pose is as likely, as for symmetric pictures.")
    gated: bool = Field(description="Whether the picture was left alone, for its pose is not clear.")
    flagged: bool = Field(description="Whether the pose is doubtful.")
    continuous: bool = Field(description="Whether the posterior is a density over angles.")
    posterior: list[PoseShare] = Field(description="All poses of a finite group, or cells of a density.")


class Asked(BaseModel):
    """What was done to the picture before the models saw it."""

    degrees: float
    flip: bool
    square: bool


class Answer(BaseModel):
    """The answer to one picture."""

    width: int = Field(description="Of the turned picture, in pixels.")
    height: int
    asked: Asked
    bare: Reading | None = Field(description="What the model itself says.")
    adapted: Reading = Field(description="What the adapted model says.")
    pose: PoseReading
    canonical: str | None = Field(description="Data URL of the picture as the model is shown it, small.")
    seconds: float = Field(description="How long the computation took, decoding included.")


class Error(BaseModel):
    """What went wrong."""

    code: str = Field(description="For programs: one word with underscores.")
    message: str = Field(description="For people: what went wrong, and what to do.")


class Failure(BaseModel):
    """An answer that is none."""

    error: Error


class ExampleInfo(BaseModel):
    """A picture to try things on: `GET /api/examples/{name}`."""

    name: str
    title: str


class LimitsInfo(BaseModel):
    """What is refused."""

    max_bytes: int
    max_pixels: int
    max_seconds: float
    workers: int
    queue: int


class Info(BaseModel):
    """What this server runs."""

    version: str
    model: str
    task: str
    classes: int
    group: str
    reflections: bool = Field(description="Whether the group has flips.")
    poses: list[float] | None = Field(description="Angles of the group in degrees; null: all of them.")
    mode: str
    canonicalizer_parameters: int
    formats: list[str]
    limits: LimitsInfo
    examples: list[ExampleInfo]


class Health(BaseModel):
    """That the server is there."""

    status: str
