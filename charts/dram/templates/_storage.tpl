{{- /* Storage for jobs that name none, as JSON; `{}` is none. */ -}}
{{- define "dram.storage" -}}
{{- .Values.storage | toJson }}
{{- end }}
