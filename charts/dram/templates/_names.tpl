{{- /* The release's name, with `dram` in it, as a Service's has to be: no dots, and a letter first. */ -}}
{{- define "dram.name" -}}
{{- $name := ternary .Release.Name (printf "%s-dram" .Release.Name) (contains "dram" .Release.Name) | replace "." "-" -}}
{{- if regexMatch "^[0-9]" $name }}{{ $name = printf "dram-%s" $name }}{{ end }}
{{- $name | trunc 40 | trimAll "-" }}
{{- end }}

{{- define "dram.labels" -}}
{{ include "dram.selector" . }}
{{ include "dram.version" . }}
{{- end }}

{{- define "dram.version" -}}
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

{{- define "dram.account" -}}
{{ .Values.serviceAccount.name | default (include "dram.name" .) }}
{{- end }}

{{- define "dram.progressSecret" -}}
{{ .Values.progress.tlsSecret | default (printf "%s-progress-tls" (include "dram.name" .)) }}
{{- end }}

{{- /* An image's full name; `imageRegistry` takes the place of its registry. Of `root` and `image`. */ -}}
{{- define "dram.image" -}}
{{- $repository := .image.repository }}
{{- with .root.Values.imageRegistry }}
{{- $parts := splitList "/" $repository }}
{{- if and (gt (len $parts) 1) (regexMatch "[.:]|^localhost$" (first $parts)) }}
{{- $repository = join "/" (rest $parts) }}
{{- end }}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) $repository }}
{{- end }}
{{- if .image.digest -}}
{{ $repository }}@{{ .image.digest }}
{{- else -}}
{{ $repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end }}
{{- end }}

{{- /* Of a whole pod, and of a container: what Pod Security's level "restricted" asks for, and a root that nobody writes. */ -}}
{{- define "dram.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "dram.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* Labels of what is not the operator. Of `root` and `part`. */ -}}
{{- define "dram.partSelector" -}}
app.kubernetes.io/name: dram
app.kubernetes.io/component: {{ .part }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end }}

{{- define "dram.partLabels" -}}
{{ include "dram.partSelector" . }}
{{ include "dram.version" .root }}
{{- end }}

{{- /* Where `helm test` runs: in the release's namespace, or in the first that is served. */ -}}
{{- define "dram.selftestNamespace" -}}
{{- if or (not .Values.namespaces) (has .Release.Namespace .Values.namespaces) -}}
{{ .Release.Namespace }}
{{- else -}}
{{ first .Values.namespaces }}
{{- end }}
{{- end }}

{{- /* Whether the chart's agents push their telemetry to its gateway; empty is no. */ -}}
{{- define "dram.agentPushes" -}}
{{- if and .Values.agent.tokensSecret .Values.gateway.enabled }}true{{ end }}
{{- end }}
