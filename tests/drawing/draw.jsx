// Draws a dashboard of Grafana with Grafana's own components (@grafana/ui), from the answers of a
// Prometheus. What is not in that package (queries, variables, the grid, heatmaps) stands here.

import {
  applyFieldOverrides, createTheme, dateTime, FieldConfigOptionsRegistry, FieldType, formattedValueToString,
  getDisplayProcessor, getFieldDisplayValues, getValueFormat, makeTimeRange, standardFieldConfigEditorRegistry,
  standardTransformers, standardTransformersRegistry, ThemeContext, toDataFrame, transformDataFrame,
} from '@grafana/data';
import { BarGauge, BigValue, GlobalStyles, PanelChrome, Table, TimeSeries, VizRepeater } from '@grafana/ui';
import React, { useEffect, useRef } from 'react';
import { createRoot } from 'react-dom/client';
import { firstValueFrom } from 'rxjs';
import 'uplot/dist/uPlot.min.css';

const CELL = { width: 1400 / 24, height: 38, gap: 8 };
const theme = createTheme({ colors: { mode: 'dark' } });

standardTransformersRegistry.setInit(() =>
  [standardTransformers.joinByFieldTransformer, standardTransformers.mergeTransformer, standardTransformers.organizeFieldsTransformer].map((transformation) => ({ id: transformation.id, name: transformation.name, transformation })));

// Grafana's own list of settings is not in its packages: each is taken as it is.
const setting = (path, isCustom) => ({
  id: isCustom ? `custom.${path}` : path, path, isCustom, name: path, settings: {},
  process: (value) => value, shouldApply: () => true, editor: () => null, override: () => null,
});
const STANDARD = ['unit', 'min', 'max', 'decimals', 'displayName', 'noValue', 'thresholds', 'mappings', 'links', 'color'];
standardFieldConfigEditorRegistry.setInit(() => STANDARD.map((path) => setting(path, false)));
const CUSTOM = [
  'cellOptions', 'width', 'lineWidth', 'fillOpacity', 'stacking', 'showPoints', 'pointSize', 'thresholdsStyle', 'axisSoftMax', 'minWidth',
];
const registry = new FieldConfigOptionsRegistry(() => [
  ...STANDARD.map((path) => setting(path, false)),
  ...CUSTOM.map((path) => setting(path, true)),
]);

async function ask(prometheus, path, parameters) {
  const answer = await fetch(`${prometheus}/api/v1/${path}?${new URLSearchParams(parameters)}`);
  const { status, data, error } = await answer.json();
  if (status !== 'success') throw new Error(`${error}: ${JSON.stringify(parameters)}`);
  return data;
}

function fillIn(text, values) {
  return text.replace(/\$\{?(\w+)(?::\w+)?\}?/g, (whole, name) => values[name] ?? whole);
}

const number = (text) => ({ '+Inf': Infinity, '-Inf': -Infinity }[text] ?? Number(text));

function legend(format, labels) {
  return format.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, label) => labels[label] ?? '');
}

async function frames(panel, scene) {
  const made = [];
  for (const target of panel.targets ?? []) {
    const query = fillIn(target.expr, scene.values);
    const { result } = target.instant
      ? await ask(scene.prometheus, 'query', { query, time: scene.to })
      : await ask(scene.prometheus, 'query_range', { query, start: scene.from, end: scene.to, step: scene.step });
    if (target.format === 'table') {
      if (!result.length) continue;
      const labels = [...new Set(result.flatMap(({ metric }) => Object.keys(metric)))];
      made.push(toDataFrame({ refId: target.refId, fields: [
        { name: 'Time', type: FieldType.time, values: result.map(() => scene.to * 1000) },
        ...labels.map((name) => ({ name, type: FieldType.string, values: result.map(({ metric }) => metric[name]) })),
        // As @grafana/prometheus names it: result_transformer.ts.
        { name: panel.targets.length > 1 ? `Value #${target.refId}` : 'Value', type: FieldType.number, values: result.map(({ value }) => number(value[1])) },
      ] }));
      continue;
    }
    for (const { metric, value, values = [value] } of result) {
      const known = new Map(values.map(([at, text]) => [Math.round(at), number(text)]));
      const times = [];
      if (target.instant) times.push(scene.to);
      else for (let at = scene.from; at <= scene.to; at += scene.step) times.push(at);
      const numbers = target.instant ? [number(values[0][1])] : times.map((at) => known.get(at) ?? null);
      made.push(toDataFrame({ refId: target.refId, fields: [
        { name: 'Time', type: FieldType.time, values: times.map((at) => at * 1000) },
        { name: 'Value', type: FieldType.number, labels: metric, values: numbers,
          config: { displayNameFromDS: legend(target.legendFormat || '{{' + Object.keys(metric)[0] + '}}', metric) } },
      ] }));
    }
  }
  const transformed = panel.transformations ? await firstValueFrom(transformDataFrame(panel.transformations, made)) : made;
  return applyFieldOverrides({
    data: transformed,
    fieldConfig: panel.fieldConfig, fieldConfigRegistry: registry, theme,
    replaceVariables: (text) => fillIn(text, scene.values), timeZone: 'utc',
  });
}

async function exemplars(panel, scene) {
  const asked = (panel.targets ?? []).filter(({ exemplar }) => exemplar);
  const found = await Promise.all(asked.map(({ expr }) => ask(scene.prometheus, 'query_exemplars', {
    query: fillIn(expr, scene.values), start: scene.from, end: scene.to,
  })));
  // Like Grafana, which thins them out: one for each time, the slowest.
  const slowest = new Map();
  for (const exemplar of found.flat().flatMap(({ exemplars }) => exemplars)) {
    const time = Math.floor(exemplar.timestamp / (4 * scene.step));
    if (!(Number(slowest.get(time)?.value) >= Number(exemplar.value))) slowest.set(time, exemplar);
  }
  return [...slowest.values()];
}

// When an alert fired, from sample to sample.
async function alerts(board, scene) {
  const spans = await Promise.all(board.annotations.list.map(async ({ expr }) => {
    const { result } = await ask(scene.prometheus, 'query_range', {
      query: fillIn(expr, scene.values), start: scene.from, end: scene.to, step: scene.step,
    });
    return result.map(({ values }) => ({ begin: values[0][0], end: values.at(-1)[0] }));
  }));
  return spans.flat();
}

function Nothing({ text }) {
  return <div style={{ display: 'grid', placeItems: 'center', height: '100%', color: theme.colors.text.secondary }}>{text}</div>;
}

function Stat({ panel, data, width, height }) {
  const [shown] = getFieldDisplayValues({
    fieldConfig: panel.fieldConfig, reduceOptions: panel.options.reduceOptions, replaceVariables: (text) => text,
    theme, data, timeZone: 'utc',
  });
  const { display } = shown;
  return <BigValue value={display} theme={theme} width={width} height={height} {...panel.options} />;
}

function Bars({ panel, data, width, height }) {
  const values = getFieldDisplayValues({
    fieldConfig: panel.fieldConfig, reduceOptions: panel.options.reduceOptions, replaceVariables: (text) => text,
    theme, data, timeZone: 'utc',
  });
  return <VizRepeater
    source={values} getValues={() => values} width={width} height={height} orientation="horizontal" itemSpacing={8}
    minVizHeight={panel.options.minVizHeight} maxVizHeight={panel.options.maxVizHeight}
    renderValue={({ value, width, height }) => <BarGauge
      value={value.display} field={value.field} text={{}} display={getDisplayProcessor({ field: { config: value.field }, theme })}
      theme={theme} itemSpacing={8} lcdCellWidth={12} width={width} height={height} {...panel.options} />} />;
}

function Lines({ panel, data, exemplars, width, height, scene }) {
  return <TimeSeries
    frames={data} structureRev={1} timeRange={scene.range} timeZone="utc" width={width} height={height}
    legend={panel.options.legend} options={panel.options}>
    {(plot) => {
      plot.addHook('draw', (u) => {
        for (const { begin, end } of scene.alerts) {
          const [left, right] = [begin, end].map((at) => u.valToPos(at * 1000, 'x', true));
          u.ctx.fillStyle = 'rgba(242, 73, 92, 0.10)';
          u.ctx.fillRect(left, u.bbox.top, right - left, u.bbox.height);
          u.ctx.fillStyle = theme.visualization.getColorByName('red');
          u.ctx.fillRect(left, u.bbox.top, 1, u.bbox.height);
          u.ctx.fillRect(left, u.bbox.top + u.bbox.height, right - left, 3);
        }
        const { scale } = u.series[1];
        u.ctx.fillStyle = theme.visualization.getColorByName('blue');
        for (const { timestamp, value } of exemplars) {
          const [x, y] = [u.valToPos(timestamp * 1000, 'x', true), u.valToPos(Number(value), scale, true)];
          if (y < u.bbox.top) continue;
          u.ctx.beginPath();
          u.ctx.moveTo(x, y - 4); u.ctx.lineTo(x + 4, y); u.ctx.lineTo(x, y + 4); u.ctx.lineTo(x - 4, y); u.ctx.fill();
        }
      });
      return null;
    }}
  </TimeSeries>;
}

function Rows({ panel, data, width, height }) {
  return <Table data={data[0]} width={width} height={height} initialSortBy={panel.options.sortBy}
    cellHeight={panel.options.cellHeight} timeRange={undefined} />;
}

function Heatmap({ panel, data, width, height, scene }) {
  const canvas = useRef();
  useEffect(() => {
    const context = canvas.current.getContext('2d');
    const rows = data.map((frame) => ({ le: number(frame.fields[1].labels.le), values: frame.fields[1].values }))
      .sort((a, b) => a.le - b.le);
    const cells = rows.map(({ values }, row) => values.map((value, at) => (value ?? 0) - (row ? rows[row - 1].values[at] ?? 0 : 0)));
    const most = Math.max(...cells.flat());
    const left = 60, bottom = 24;
    const w = (width - left) / cells[0].length, h = (height - bottom) / rows.length;
    const format = getValueFormat(panel.options.yAxis.unit);
    context.font = '12px Inter, sans-serif';
    context.fillStyle = theme.colors.text.primary;
    const every = Math.ceil(16 / h);
    rows.forEach(({ le }, row) => {
      if (row % every === 0) context.fillText(le === Infinity ? '+Inf' : formattedValueToString(format(le)), 4, height - bottom - (row + 0.3) * h);
    });
    for (let tick = 1; tick < 6; tick++) {
      const at = new Date((scene.from + ((scene.to - scene.from) * tick) / 6) * 1000);
      context.fillText(at.toISOString().slice(11, 16), left + ((width - left) * tick) / 6 - 15, height - 6);
    }
    cells.forEach((row, y) => row.forEach((value, x) => {
      if (value <= 1e-9) return;
      const strength = Math.sqrt(value / most);
      context.fillStyle = `hsl(${35 - 15 * strength} 90% ${theme.isDark ? 20 + 50 * strength : 90 - 50 * strength}%)`;
      context.fillRect(left + x * w, height - bottom - (y + 1) * h, Math.max(w - 1, 1), Math.max(h - 1, 1));
    }));
  });
  return <canvas ref={canvas} width={width} height={height} />;
}

const KINDS = { stat: Stat, bargauge: Bars, timeseries: Lines, table: Rows, heatmap: Heatmap };

function Panel({ panel, data, exemplars, scene }) {
  const { x, y, w, h } = panel.gridPos;
  const place = { position: 'absolute', left: x * CELL.width, top: y * CELL.height, width: w * CELL.width - CELL.gap, height: h * CELL.height - CELL.gap };
  if (panel.type === 'row') return <h3 style={{ ...place, margin: 0, fontSize: 16 }}>⌄ {panel.title}</h3>;
  const Kind = KINDS[panel.type];
  const empty = !data.length || (panel.type === 'stat' && !data.some((frame) => frame.length));
  return <div style={place}><PanelChrome
    title={panel.title} description={panel.description} width={place.width} height={place.height}>
    {(width, height) => empty && panel.type !== 'stat' ? <Nothing text={panel.fieldConfig.defaults.noValue} /> :
      <Kind panel={panel} data={data} exemplars={exemplars} width={width} height={height} scene={scene} />}
  </PanelChrome></div>;
}

async function draw({ board, prometheus, from, to, values }) {
  const step = Math.max(5, Math.ceil((to - from) / 600 / 5) * 5);
  const start = Math.floor(from / step) * step;
  const end = Math.floor(to / step) * step;
  const scene = {
    prometheus, from: start, to: end, step, range: makeTimeRange(dateTime(start * 1000), dateTime(end * 1000)),
    values: { __rate_interval: `${Math.max(step + 5, 20)}s`, __range: `${end - start}s`, ...values },
  };
  scene.alerts = await alerts(board, scene);
  const drawn = await Promise.all(board.panels.map(async (panel) => ({
    panel, data: await frames(panel, scene), exemplars: await exemplars(panel, scene),
  })));
  const height = Math.max(...board.panels.map(({ gridPos }) => gridPos.y + gridPos.h)) * CELL.height;
  document.body.style.margin = 0;
  createRoot(document.getElementById('root')).render(
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <div style={{ background: theme.colors.background.canvas, padding: 16, width: 1400 }}>
        <div style={{ display: 'flex', gap: 16, paddingBottom: 12, fontSize: 16 }}>
          <b>{board.title}</b>
          {board.templating.list.filter(({ hide }) => !hide).map(({ name, label }) =>
            <span key={name} style={{ fontSize: 13, color: theme.colors.text.secondary }}>{label}: {{ '.*': 'All' }[values[name]] ?? values[name] ?? 'Prometheus'}</span>)}
        </div>
        <div style={{ position: 'relative', height }}>
          {drawn.map(({ panel, data, exemplars }) => <Panel key={panel.id} panel={panel} data={data} exemplars={exemplars} scene={scene} />)}
        </div>
      </div>
    </ThemeContext.Provider>,
  );
}

window.draw = draw;
