"""What the dashboards are put together from: panels, queries, variables and links."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol, Self, TypeVar

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    heatmap,
    prometheus,
    stat,
    table,
    timeseries,
)
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import heatmap as heatmap_options
from grafana_foundation_sdk.models import prometheus as promql

from exporter.metrics.exposition import family_names
from exporter.queues.reason_counts import OTHER, RESERVED, UNKNOWN

SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
GREEN, AMBER, RED, BLUE = "green", "orange", "red", "blue"
# For what is not known: neither good nor bad.
GREY = "#5a6070"
TAG = "bullmq"
# What is clicked on, in links: the queue of a line, the text of a cell.
LINE = "${__field.labels.queue:percentencode}"
CELL = "${__value.text:percentencode}"
# The instances of the exporter that are looked at, the targets and key prefixes of their queues,
# one queue.
EXPORTERS = 'instance=~"$instance"'
QUEUES = f'{EXPORTERS},target=~"$target",prefix=~"$prefix"'
# Not `=~`: Grafana escapes what means something in a regular expression only where several values
# can be chosen, so that `a+b` would find nothing and `v1.mail` would find `v1-mail` too.
QUEUE = f'{QUEUES},queue="$queue"'
# One queue, where several exporters, targets or prefixes have one of the same name.
EACH = "by (job, instance, target, prefix, queue)"
PER_MINUTE = "suffix:/min"
COUNTS = ("short", "none", PER_MINUTE)

# Series that Prometheus makes of our families and of its rules.
PARTS = ("_bucket", "_count", "_sum")


class UnknownSeries(ValueError):
    """A query names a series that the exporter does not have."""


class Panel(Protocol):
    """What all panel builders can do."""

    def title(self, title: str) -> Self: ...
    def description(self, description: str) -> Self: ...
    def datasource(self, datasource: model.DataSourceRef) -> Self: ...
    def height(self, h: int) -> Self: ...
    def span(self, w: int) -> Self: ...
    def no_value(self, no_value: str) -> Self: ...
    def with_target(self, target: Any) -> Self: ...


P = TypeVar("P", bound=Panel)


def check(expression: str) -> str:
    """The expression. Raises UnknownSeries where it names what the exporter does not export."""
    known = family_names()
    for name in re.findall(r"\b(?:bullmq|process|python)_\w+(?=[{\[\s)]|$)", expression):
        stem = next((name.removesuffix(part) for part in PARTS if name.endswith(part)), name)
        if name not in known and stem not in known:
            raise UnknownSeries(f"{name} in {expression}")
    return expression


def query(
    expression: str, legend: str = "", *, exemplars: bool = False, heatmap: bool = False
) -> prometheus.Dataquery:
    """A query over the time that the dashboard shows."""
    made = prometheus.Dataquery().expr(check(expression)).range().legend_format(legend)
    if heatmap:
        made.format(promql.PromQueryFormat.HEATMAP).legend_format("{{le}}")
    return made.exemplar(exemplars) if exemplars else made


def now(expression: str, ref: str = "A", *, as_table: bool = False) -> prometheus.Dataquery:
    """A query for the present moment."""
    made = prometheus.Dataquery().expr(check(expression)).instant().ref_id(ref)
    return made.format(promql.PromQueryFormat.TABLE) if as_table else made


def thresholds(*steps: tuple[float | None, str]) -> build.ThresholdsConfig:
    """Colours from each value on; the first is None, for all below."""
    return (
        build.ThresholdsConfig()
        .mode(model.ThresholdsMode.ABSOLUTE)
        .steps([model.Threshold(value=value, color=color) for value, color in steps])
    )


def describe(panel: P, title: str, description: str, nothing: str, size: tuple[int, int]) -> P:
    """What every panel has: a title, what it shows, what no data means, and its width and height."""
    width, height = size
    return (
        panel.title(title)
        .description(description)
        .no_value(nothing)
        .datasource(SOURCE)
        .span(width)
        .height(height)
    )


def tile(
    title: str,
    expression: str,
    description: str,
    *,
    unit: str,
    colors: build.ThresholdsConfig,
    nothing: str,
    width: int = 4,
    height: int = 4,
    texts: dict[str, tuple[str, str]] | None = None,
    link: tuple[str, str] | None = None,
) -> stat.Panel:
    """One number, coloured as a whole; `texts` shows words and colours for values.

    Without a value it is grey: Grafana gives "no data" the colour of the lowest threshold, and what
    is not known must look neither well nor broken.
    """
    panel = (
        describe(stat.Panel(), title, description, nothing, (width, height))
        .with_target(now(expression))
        .unit(unit)
        .thresholds(colors)
        .color_mode(options.BigValueColorMode.BACKGROUND)
        .graph_mode(options.BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    unknown = model.SpecialValueMap(
        options=model.DashboardSpecialValueMapOptions(
            match=model.SpecialValueMatch.NULL_AND_NAN,
            result=model.ValueMappingResult(text=nothing, color=GREY),
        )
    )
    words = {
        value: model.ValueMappingResult(text=text, color=color)
        for value, (text, color) in (texts or {}).items()
    }
    panel.mappings([unknown, *([model.ValueMap(options=words)] if words else [])])
    if link:
        panel.data_links([build.DashboardLink(link[0]).url(link[1])])
    return panel


def graph(
    title: str,
    queries: Sequence[prometheus.Dataquery],
    description: str,
    *,
    unit: str,
    nothing: str,
    size: tuple[int, int] = (12, 8),
    stacked: bool = False,
    long_names: bool = False,
    limits: build.ThresholdsConfig | None = None,
    links: Sequence[tuple[str, str]] = (),
) -> timeseries.Panel:
    """Lines over time; `limits` are drawn as dashed lines. Long names have the legend below them."""
    narrow = size[0] < 12
    below = narrow or long_names
    panel = (
        describe(timeseries.Panel(), title, description, nothing, size)
        .unit(unit)
        .min(0)
        .color_scheme(build.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC))
        .line_width(1)
        .fill_opacity(25 if stacked else 0)
        # Never would hide a value between two gaps: a job that waited at one scrape.
        .show_points(options.VisibilityMode.AUTO)
        .point_size(5)
        .legend(
            common.VizLegendOptions()
            .display_mode(
                options.LegendDisplayMode.LIST if narrow else options.LegendDisplayMode.TABLE
            )
            .placement(options.LegendPlacement.BOTTOM if below else options.LegendPlacement.RIGHT)
            .show_legend(True)
            .calcs([] if below else ["lastNotNull", "max"])
            .sort_by("Last *")
            .sort_desc(True)
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(options.TooltipDisplayMode.MULTI)
            .sort(options.SortOrder.DESCENDING)
        )
    )
    for each in queries:
        panel.with_target(each)
    if unit in COUNTS:
        # Otherwise a line at 0 lies under an axis to 100.
        panel.axis_soft_max(1)
    if stacked:
        panel.stacking(common.StackingConfig().mode(options.StackingMode.NORMAL))
    if limits:
        panel.thresholds(limits).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(options.GraphThresholdsStyleMode.DASHED)
        )
    if links:
        panel.data_links([build.DashboardLink(text).url(url) for text, url in links])
    return panel


def reasons_over_time(
    title: str,
    expression: str,
    description: str,
    *,
    nothing: str,
    link: tuple[str, str],
    own_link: tuple[str, str],
) -> timeseries.Panel:
    """Rates by `fingerprint` and `reason`, stacked; `own_link` is that of a reason."""
    panel = graph(
        title,
        [query(expression, "{{reason}}")],
        description,
        unit=PER_MINUTE,
        nothing=nothing,
        size=(12, 10),
        stacked=True,
        long_names=True,
        links=(own_link,),
    )
    # No group of the page has these.
    for name in (RESERVED[OTHER], RESERVED[UNKNOWN]):
        grey = model.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": GREY})
        panel.override_by_name(name, [linked([link]), grey])
    return panel


def heat(title: str, histogram: str, description: str, *, nothing: str) -> heatmap.Panel:
    """How the observations of a histogram are spread, over time."""
    return (
        describe(heatmap.Panel(), title, description, nothing, (12, 8))
        .with_target(
            query(
                f"sum by (le) (increase({histogram}_bucket{{{QUEUE}}}[$__rate_interval]))",
                heatmap=True,
                exemplars=True,
            )
        )
        .calculate(False)
        .y_axis(heatmap.YAxisConfig().unit("s"))
        .cell_gap(1)
        .filter_values(heatmap.FilterValueRange().le(1e-9))
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heatmap_options.HeatmapColorMode.SCHEME)
            .scheme("Oranges")
            .steps(64)
        )
    )


def bars(
    title: str,
    expression: str,
    description: str,
    *,
    legend: str,
    nothing: str,
    link: tuple[str, str],
    size: tuple[int, int],
) -> bargauge.Panel:
    """The largest of a kind, as bars."""
    return (
        describe(bargauge.Panel(), title, description, nothing, size)
        .with_target(now(expression).legend_format(legend))
        .unit("none")
        .min(0)
        .orientation(options.VizOrientation.HORIZONTAL)
        .display_mode(options.BarGaugeDisplayMode.BASIC)
        .sizing(options.BarGaugeSizing.MANUAL)
        .min_viz_height(16)
        .max_viz_height(20)
        .thresholds(thresholds((None, RED)))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .data_links([build.DashboardLink(link[0]).url(link[1])])
    )


def rows(
    title: str,
    columns: Sequence[tuple[str, str, dict[str, Any]]],
    description: str,
    *,
    by: str,
    shown: str | None = None,
    nothing: str,
    sort: Sequence[str],
    links: Sequence[tuple[str, str]],
    size: tuple[int, int] = (24, 8),
) -> table.Panel:
    """A table with a row for each value of the label `by`, the highest of the columns `sort` first.

    A column: its title, its expression, and what Grafana shall make of it (unit, thresholds, …).
    `shown` is a label that stands for `by`, such as the name of an id: the first expression has both.
    """
    panel = describe(table.Panel(), title, description, nothing, size).min_width(90)
    names, order = {by: by.capitalize()}, {by: 0}
    if shown:
        names[shown], order[shown], order[by] = shown.capitalize(), 0, len(columns) + 1
        panel.override_by_name(by.capitalize(), [wide(130)])
    for number, (column, expression, look) in enumerate(columns):
        ref = chr(ord("A") + number)
        panel.with_target(now(expression, ref, as_table=True))
        names[f"Value #{ref}"] = column
        order[f"Value #{ref}"] = number + 1
        panel.override_by_name(
            column,
            [
                model.DynamicConfigValue(id_val=key, value=value)
                for key, value in {**look, "noValue": "-"}.items()
            ],
        )
    panel.with_transformation(
        model.DataTransformerConfig(id_val="joinByField", options={"byField": by, "mode": "outer"})
    )
    panel.with_transformation(
        model.DataTransformerConfig(
            id_val="organize",
            options={
                "renameByName": names,
                "indexByName": order,
                "excludeByName": {f"Time {n + 1}": True for n in range(len(columns))}
                | {"Time": True},
            },
        )
    )
    width = [] if shown else [wide(220)]
    panel.override_by_name((shown or by).capitalize(), [linked(links), *width])
    return panel.sort_by(
        [common.TableSortByFieldState().display_name(column).desc(True) for column in sort]
    )


def linked(links: Sequence[tuple[str, str]]) -> model.DynamicConfigValue:
    """The links of a column's cells."""
    return model.DynamicConfigValue(
        id_val="links", value=[{"title": text, "url": url} for text, url in links]
    )


def wide(pixels: int) -> model.DynamicConfigValue:
    """The width of a column."""
    return model.DynamicConfigValue(id_val="custom.width", value=pixels)


def worded(words: dict[str, tuple[str, str]]) -> list[dict[str, Any]]:
    """Words and colours for values."""
    shown = {value: {"text": text, "color": color} for value, (text, color) in words.items()}
    return [{"type": "value", "options": shown}]


def firing_alerts(selector: str, *, size: tuple[int, int]) -> table.Panel:
    """What fires, since when; each with its runbook."""
    panel = (
        describe(
            table.Panel(),
            "Firing alerts",
            "The newest first. Click one for its runbook, or its queue.",
            "Nothing fires, or the rules are not loaded",
            size,
        )
        .with_target(
            now(
                f"1000 * max by (severity, alertname, queue) (ALERTS_FOR_STATE{{{selector}}}"
                f' and ignoring (alertstate) ALERTS{{alertstate="firing",{selector}}})',
                as_table=True,
            )
        )
        .with_transformation(
            model.DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": {"Time": True},
                    "indexByName": {"severity": 0, "alertname": 1, "queue": 2, "Value": 3},
                    "renameByName": {
                        "severity": "Severity",
                        "alertname": "Alert",
                        "queue": "Queue",
                        # With one query; with several it would be `Value #A`.
                        "Value": "Since",
                    },
                },
            )
        )
        .sort_by([common.TableSortByFieldState().display_name("Since").desc(True)])
    )
    colors = {"critical": ("critical", RED), "warning": ("warning", AMBER)}
    looks: dict[str, list[model.DynamicConfigValue]] = {
        "Severity": [
            model.DynamicConfigValue(id_val="mappings", value=worded(colors)),
            model.DynamicConfigValue(
                id_val="custom.cellOptions", value={"type": "color-background", "mode": "basic"}
            ),
            wide(100),
        ],
        "Alert": [linked([("Runbook", f"${{runbooks}}/{CELL}.md")])],
        "Queue": [linked([("This queue", queue_url(CELL))])],
        "Since": [model.DynamicConfigValue(id_val="unit", value="dateTimeFromNow"), wide(140)],
    }
    for column, look in looks.items():
        panel.override_by_name(column, look)
    return panel


def new_reasons(expression: str, count: str, *, size: tuple[int, int]) -> table.Panel:
    """Reasons by `queue`, `fingerprint` and `reason`: since when they are seen, and how often."""
    panel = (
        describe(
            table.Panel(),
            "New reasons, 24 h",
            "Reasons for which no job had failed for seven days before, the newest first. Failed: "
            "within the last hour. Click a reason for its jobs, or its queue.",
            "No reason is new, or events are not followed",
            size,
        )
        .with_target(now(f"1000 * {expression}", "A", as_table=True))
        .with_target(now(f"{count} and {expression}", "B", as_table=True))
        .with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(
            model.DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": {"Time": True},
                    "indexByName": {
                        "queue": 0,
                        "reason": 1,
                        "Value #B": 2,
                        "Value #A": 3,
                        "fingerprint": 4,
                    },
                    "renameByName": {
                        "queue": "Queue",
                        "reason": "Reason",
                        "Value #B": "Failed",
                        "Value #A": "First seen",
                        "fingerprint": "Fingerprint",
                    },
                },
            )
        )
        .sort_by([common.TableSortByFieldState().display_name("First seen").desc(True)])
    )
    queue = "${__data.fields.queue:percentencode}"
    jobs = reason_url(queue, "${__data.fields.fingerprint}")
    looks: dict[str, list[model.DynamicConfigValue]] = {
        "Queue": [linked([("This queue", queue_url(CELL))]), wide(120)],
        "Reason": [linked([("Jobs with this reason", jobs)])],
        "Failed": [wide(70)],
        "First seen": [
            model.DynamicConfigValue(id_val="unit", value="dateTimeFromNow"),
            wide(120),
        ],
        "Fingerprint": [wide(120)],
    }
    for column, look in looks.items():
        panel.override_by_name(column, look)
    return panel


def colored(unit: str, *steps: tuple[float | None, str]) -> dict[str, Any]:
    """The look of a column whose cells are coloured by their values."""
    return {
        "unit": unit,
        "custom.cellOptions": {"type": "color-background", "mode": "basic"},
        "thresholds": {
            "mode": "absolute",
            "steps": [{"value": value, "color": color} for value, color in steps],
        },
    }


def variable(name: str, label: str, values: str, *, several: bool) -> build.QueryVariable:
    """A choice among the values that Prometheus knows."""
    made = (
        build.QueryVariable(name)
        .label(label)
        .query(check(values))
        .datasource(SOURCE)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
    )
    return (
        made.multi(True)
        .include_all(True)
        .all_value(".*")
        .current(model.VariableOption(selected=True, text="All", value="$__all"))
        if several
        else made
    )


def board(uid: str, title: str, description: str) -> build.Dashboard:
    """An empty dashboard with what all of them have."""
    return (
        build.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .time("now-3h", "now")
        .refresh("30s")
        .readonly()
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .with_variable(
            build.DatasourceVariable("datasource").label("Data source").type("prometheus")
        )
        .with_variable(
            variable("instance", "Exporter", "label_values(bullmq_up, instance)", several=True)
        )
        .link(
            build.DashboardLink("BullMQ dashboards")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .include_vars(True)
            .keep_time(True)
        )
    )


def narrowed(dashboard: build.Dashboard) -> build.Dashboard:
    """With variables for targets and key prefixes.

    They are known only of an exporter that watches several; hence the `.*` of All.
    """
    for name, label in (("target", "Target"), ("prefix", "Prefix")):
        values = f"label_values(bullmq_job_count{{{EXPORTERS}}}, {name})"
        dashboard.with_variable(variable(name, label, values, several=True))
    return dashboard


def place_variable(name: str) -> build.QueryVariable:
    """An address, from the series that the links of alerts are made from too: jobs or runbooks."""
    return (
        build.QueryVariable(name)
        .query(f"label_values(bullmq:links, {name})")
        .datasource(SOURCE)
        .refresh(model.VariableRefresh.ON_DASHBOARD_LOAD)
        .hide(model.VariableHide.HIDE_VARIABLE)
    )


class TitledAnnotation(model.AnnotationQuery):
    """An annotation with the fields of Prometheus's that the SDK lacks.

    Without them it says nothing when one points at it (@grafana/prometheus, datasource.ts).
    """

    title_format = text_format = ""

    def to_json(self) -> dict[str, object]:
        return super().to_json() | {
            "titleFormat": self.title_format,
            "textFormat": self.text_format,
        }


class AnnotationBuilder(build.AnnotationQuery):
    """Builds a TitledAnnotation."""

    def __init__(self, title_format: str, text_format: str) -> None:
        super().__init__()
        self._internal = annotation = TitledAnnotation()
        annotation.title_format, annotation.text_format = title_format, text_format


def with_releases(dashboard: build.Dashboard) -> build.Dashboard:
    """With releases of the application on the time axis.

    They are where a metric like `build_info`, of which the variable has the name, gets other labels:
    what was not there 5 minutes ago. (`job` keeps the selector valid if the name is empty.)
    """
    info = 'count without (instance, pod) ({__name__="$release",job=~".+"}'
    return dashboard.with_variable(
        build.TextBoxVariable("release").label("Release metric").default_value("app_build_info")
    ).annotation(
        AnnotationBuilder("{{job}} {{version}}", "Release")
        .name("Releases")
        .datasource(SOURCE)
        .enable(True)
        .icon_color(BLUE)
        .expr(f"{info}) unless {info} offset 5m)")
    )


def alerts_annotation(selector: str) -> build.AnnotationQuery:
    """Firing alerts on the time axis."""
    return (
        AnnotationBuilder("{{alertname}} {{queue}}", "{{severity}}")
        .name("Alerts")
        .datasource(SOURCE)
        .enable(True)
        .icon_color(RED)
        .expr(f'ALERTS{{alertstate="firing",alertname=~"BullMQ.+",{selector}}}')
    )


def jobs_url(queue: str, status: str) -> str:
    """The page with the jobs of a queue in a state, newest first."""
    return f"${{jobs}}/?queue={queue}&status={status}"


def reason_url(queue: str, fingerprint: str) -> str:
    """The page with the jobs of a queue that failed for a reason."""
    return f"{jobs_url(queue, 'failed')}&group={fingerprint}"


def queue_url(queue: str) -> str:
    """The dashboard of one queue, with the same time and exporters."""
    return (
        f"/d/bullmq-queue?var-queue={queue}&${{instance:queryparam}}&${{target:queryparam}}"
        "&${prefix:queryparam}&${__url_time_range}"
    )


def as_json(dashboard: model.Dashboard) -> str:
    """The dashboard as Grafana reads it; panels and queries are numbered as they stand."""
    for number, panel in enumerate(dashboard.panels or [], 1):
        panel.id_val = number
        for at, target in enumerate(getattr(panel, "targets", None) or []):
            target.ref_id = chr(ord("A") + at)
    return JSONEncoder(sort_keys=True, indent=2).encode(dashboard) + "\n"
