// What a dashboard's JSON may hold: Grafana's published types, with each panel's own options and
// field settings, and without `unknown` where Grafana knows more.

import type * as common from '@grafana/schema';
import type * as bargauge from '@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen.d.ts';
import type * as heatmap from '@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen.d.ts';
import type * as stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen.d.ts';
import type * as table from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen.d.ts';
import type * as timeseries from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen.d.ts';
import type * as raw from '@grafana/schema/dist/esm/raw/dashboard/x/dashboard_types.gen.d.ts';

// Enums are written as their values.
type Plain<T> = T extends string
  ? `${T}`
  : T extends number
    ? number extends T ? T : `${T}` extends `${infer N extends number}` ? N : never
    : T extends (infer Item)[]
      ? Plain<Item>[]
      : T extends object
        ? { [Key in keyof T]: Plain<T[Key]> }
        : T;

// @grafana/prometheus, dataquery.ts: that package brings all of Grafana's interface with it.
interface Query extends Pick<common.DataQuery, 'refId' | 'hide'> {
  expr: string;
  exemplar?: boolean;
  format?: 'time_series' | 'table' | 'heatmap';
  instant?: boolean;
  interval?: string;
  legendFormat?: string;
  range?: boolean;
}

// The SDK writes data links as it writes dashboard links; Grafana reads these two of them.
type Link = Required<Pick<raw.DashboardLink, 'title' | 'url'>> & Partial<raw.DashboardLink>;

// Fields of interval variables; the SDK writes them everywhere.
type Variable = raw.VariableModel & { auto?: false; auto_count?: number; auto_min?: string };

type Fields<Custom> = Omit<raw.FieldConfig, 'custom' | 'links'> & { custom?: Custom; links?: Link[] };

type Setting<Settings, Prefix extends string> = {
  [Key in keyof Settings & string]-?: { id: `${Prefix}${Key}`; value: Exclude<Settings[Key], undefined> };
}[keyof Settings & string];

interface FieldConfig<Custom> {
  defaults: Fields<Custom>;
  overrides: {
    matcher: { id: 'byName'; options: string };
    properties: (Setting<Omit<Fields<Custom>, 'custom'>, ''> | Setting<Custom, 'custom.'>)[];
  }[];
}

type Transformation =
  | { id: 'joinByField'; options: { byField: string; mode: 'outer' | 'inner' } }
  | { id: 'merge'; options: Record<string, never> }
  | {
      id: 'organize';
      options: {
        excludeByName: Record<string, boolean>;
        indexByName: Record<string, number>;
        renameByName: Record<string, string>;
      };
    };

type PanelOf<Type extends string, Options, Custom = {}> = Omit<
  raw.Panel,
  'type' | 'options' | 'fieldConfig' | 'targets' | 'transformations' | 'transparent' | 'repeatDirection'
> & {
  type: Type;
  title: string;
  description: string;
  gridPos: raw.GridPos;
  datasource: raw.DataSourceRef;
  options: Partial<Options>;
  fieldConfig: FieldConfig<Partial<Custom>>;
  targets: Query[];
  transformations?: Transformation[];
  transparent?: boolean;
  repeatDirection?: 'h' | 'v';
};

type Panel =
  | PanelOf<'bargauge', bargauge.Options>
  | PanelOf<'heatmap', heatmap.Options, heatmap.FieldConfig>
  | PanelOf<'stat', stat.Options>
  | PanelOf<'table', table.Options, table.FieldConfig>
  | PanelOf<'timeseries', timeseries.Options, timeseries.FieldConfig>
  | raw.RowPanel;

// @grafana/prometheus, datasource.ts: what it reads of an annotation.
type Annotation = raw.AnnotationQuery & {
  expr: string;
  titleFormat: string;
  textFormat: string;
  tagKeys?: string;
};

export type Dashboard = Plain<
  Omit<raw.Dashboard, 'panels' | 'annotations' | 'templating'> & {
    uid: string;
    panels: Panel[];
    annotations: { list: Annotation[] };
    templating: { list: Variable[] };
  }
>;
