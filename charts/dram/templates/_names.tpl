{{- define "dram.name" -}}
{{- $name := ternary .Release.Name (printf "%s-dram" .Release.Name) (contains "dram" .Release.Name) -}}
{{- $name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "dram.labels" -}}
{{ include "dram.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "dram.selector" -}}
app.kubernetes.io/name: dram
app.kubernetes.io/component: operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "dram.host" -}}
{{ include "dram.name" . }}.{{ .Release.Namespace }}.svc
{{- end }}
