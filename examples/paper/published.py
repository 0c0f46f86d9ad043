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


_MNIST_LEVELS = ".30 .36 .38 .40 .42 .44 .46 .47 .475 .48 .485 .49 .495 .50"
_table(
    "mnist",
    100,
    _MNIST_LEVELS,
    c=".981 .982 .981 .981 .982 .982 .980 .921 .927 .907 .910 .758 .727 .646",
    s=".981 .982 .981 .981 .981 .981 .962 .891 .875 .802 .764 .654 .593 .589",
    reed_hard=".975 - - .953 - .914 .818 .770 - .711 - .622 - .484",
    reed_soft=".972 - - .926 - .852 .735 .717 - .584 - .569 - .553",
    baseline=".974 .961 .945 .923 .900 .808 .725 .660 .635 .619 .579 .567 .516 .513",
)
_table(
    "mnist",
    50,
    _MNIST_LEVELS,
    c=".967 .973 .972 .974 .974 .973 .960 .932 .900 .883 .806 .777 .700 .635",
    s=".972 .974 .974 .975 .975 .969 .945 .840 .789 .774 .703 .652 .530 .460",
    baseline=".954 .924 .902 .873 .827 .784 .711 .632 .601 .607 .591 .546 .526 .478",
)
_table(
    "mnist",
    20,
    _MNIST_LEVELS,
    c=".896 .901 .900 .883 .862 .790 .736 .687 .647 .623 .614 .596 .561 .520",
    s=".937 .930 .925 .905 .876 .808 .718 .657 .583 .617 .592 .551 .535 .489",
    baseline=".912 .864 .827 .782 .750 .686 .613 .584 .554 .568 .544 .530 .496 .466",
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
