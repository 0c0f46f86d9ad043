"""Mean clean test accuracies that were published.

J. Goldberger and E. Ben-Reuven, "Training deep neural-networks using a noise adaptation layer",
ICLR 2017, five seeds. The numbers are read off the plots, to about .002, and to about .005 for
MNIST at 100 % from a noise of .485 on. No figure for EM was published.
"""

from __future__ import annotations

#: {(data, size in percent, method): {noise level: accuracy}}
PUBLISHED: dict[tuple[str, int, str], dict[float, float]] = {}


def _table(data: str, size: int, levels: str, **methods: str) -> None:
    for method, values in methods.items():
        pairs = zip(levels.split(), values.split(), strict=True)
        numbers = {float(level): float(value) for level, value in pairs if value != "-"}
        PUBLISHED[data, size, method.replace("_", "-")] = numbers


_table(
    "mnist",
    100,
    ".30 .40 .44 .46 .47 .48 .49 .50",
    c=".981 .981 .982 .980 .921 .907 .758 .646",
    s=".981 .981 .981 .962 .891 .802 .654 .589",
    reed_hard=".975 .953 .914 .818 .770 .711 .622 .484",
    reed_soft=".972 .926 .852 .735 .717 .584 .569 .553",
    baseline=".974 .923 .808 .725 .660 .619 .567 .513",
)
_table(
    "mnist",
    20,
    ".30 .40 .44 .46 .48 .50",
    c=".896 .883 .790 .736 .623 .520",
    s=".937 .905 .808 .718 .617 .489",
    baseline=".912 .782 .686 .613 .568 .466",
)
_CIFAR_LEVELS = ".30 .36 .40 .44 .46 .50"
_table(
    "cifar100",
    100,
    _CIFAR_LEVELS,
    s=".379 .332 .299 .271 .252 .211",
    c=".367 .324 .297 .278 .255 .216",
    baseline=".357 .312 .284 .260 .243 .210",
)
_table(
    "cifar100",
    50,
    _CIFAR_LEVELS,
    s=".286 .249 .226 .201 .194 .160",
    c=".274 .235 .223 .200 .192 .163",
    baseline=".273 .235 .216 .193 .185 .158",
)
_table(
    "cifar100",
    20,
    _CIFAR_LEVELS,
    s=".201 .165 .153 .141 .127 .112",
    c=".189 .158 .152 .142 .127 .116",
)
