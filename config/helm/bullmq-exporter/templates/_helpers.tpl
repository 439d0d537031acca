{{- define "bullmq-exporter.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "bullmq-exporter.fullname" -}}
{{- $name := include "bullmq-exporter.name" . }}
{{- if not (contains $name .Release.Name) }}
{{- $name = printf "%s-%s" .Release.Name $name }}
{{- else }}
{{- $name = .Release.Name }}
{{- end }}
{{- default $name .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "bullmq-exporter.selectorLabels" -}}
app.kubernetes.io/name: {{ include "bullmq-exporter.name" . }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "bullmq-exporter.labels" -}}
{{ include "bullmq-exporter.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* The port of an address to listen on, HOST:PORT. */}}
{{- define "bullmq-exporter.port" -}}
{{- splitList ":" . | last }}
{{- end }}

{{- define "bullmq-exporter.claim" -}}
{{- default (include "bullmq-exporter.fullname" .) .Values.persistence.existingClaim }}
{{- end }}

{{- define "bullmq-exporter.secretsDirectory" -}}
/run/secrets/bullmq-exporter
{{- end }}

{{- /*
What is given in `secrets`, by the name of the file that the exporter reads it from: the Secret and
the key that hold it, and the value where the chart makes that Secret.
*/}}
{{- define "bullmq-exporter.secrets" -}}
{{- $found := dict }}
{{- range $section, $settings := .Values.secrets }}
  {{- range $setting, $from := $settings }}
    {{- $file := eq $section "files" | ternary $setting (printf "%s.%s" $section $setting) }}
    {{- if and $from.value $from.existingSecret }}
      {{- fail (printf "secrets.%s.%s: set value or existingSecret, not both" $section $setting) }}
    {{- else if $from.existingSecret }}
      {{- $_ := set $found $file (dict "secret" $from.existingSecret "key" $from.key) }}
    {{- else if $from.value }}
      {{- $_ := set $found $file (dict "secret" (include "bullmq-exporter.fullname" $) "key" $file "value" $from.value) }}
    {{- end }}
  {{- end }}
{{- end }}
{{- toYaml $found }}
{{- end }}

{{- /*
The exporter's file of settings: `config`, and where its secrets are. Refuses secrets in `config`;
which settings are secret stands in values.yaml alone, as the names of `secrets`.
*/}}
{{- define "bullmq-exporter.config" -}}
{{- $config := deepCopy .Values.config }}
{{- $secrets := include "bullmq-exporter.secrets" . | fromYaml }}
{{- if not (or $config.redis $config.postgres $config.targets .Values.secrets.redis.url .Values.secrets.postgres.url .Values.extraEnv) }}
  {{- fail "where are the queues? Set config.redis.host, or config.postgres.host; values.yaml says more" }}
{{- end }}
{{- range $section, $settings := omit .Values.secrets "files" }}
  {{- $given := get $config $section | default dict }}
  {{- range $setting := keys $settings | sortAlpha }}
    {{- $name := printf "%s.%s" $section $setting }}
    {{- $path := printf "%s_file" $setting }}
    {{- if get $given $setting }}
      {{- fail (printf "config.%s: everybody may read a ConfigMap; set secrets.%s" $name $name) }}
    {{- end }}
    {{- if hasKey $secrets $name }}
      {{- if get $given $path }}
        {{- fail (printf "config.%s_file and secrets.%s: set one of the two" $name $name) }}
      {{- end }}
      {{- if and (has $section (list "redis" "postgres")) $config.targets }}
        {{- fail (printf "secrets.%s: cannot be combined with config.targets; use secrets.files and the target's %s.%s" $name $section $path) }}
      {{- end }}
      {{- $_ := set $given $path (printf "%s/%s" (include "bullmq-exporter.secretsDirectory" $) $name) }}
      {{- $_ := set $config $section $given }}
    {{- end }}
  {{- end }}
{{- end }}
{{- range $at, $target := $config.targets }}
  {{- range $section := list "redis" "postgres" }}
    {{- range $setting := keys (get $.Values.secrets $section) | sortAlpha }}
      {{- if get (get $target $section | default dict) $setting }}
        {{- fail (printf "config.targets.%d.%s.%s: everybody may read a ConfigMap; use secrets.files and %s_file" $at $section $setting $setting) }}
      {{- end }}
    {{- end }}
  {{- end }}
{{- end }}
{{- range $at, $key := $config.api.keys }}
  {{- if $key.key }}
    {{- fail (printf "config.api.keys.%d.key: everybody may read a ConfigMap; use secrets.files and key_file" $at) }}
  {{- end }}
{{- end }}
{{- toYaml $config }}
{{- end }}
