{{- /* Name servers: 53, and 5353, which OpenShift's listen on. */ -}}
{{- define "dram.egressToNames" -}}
- ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}, {port: 5353, protocol: UDP}, {port: 5353, protocol: TCP}]
{{- end }}

{{- /* API servers: 443, 6443, and what they listen on where Helm can look. */ -}}
{{- define "dram.egressToKubernetes" -}}
{{- $ports := list 443 6443 }}
{{- $found := lookup "discovery.k8s.io/v1" "EndpointSlice" "default" "kubernetes" }}
{{- range $found.ports }}{{ $ports = append $ports (int .port) }}{{ end }}
- ports:
  {{- range uniq $ports | sortAlpha }}
  - {port: {{ . }}, protocol: TCP}
  {{- end }}
{{- end }}

{{- /*
Servers by their URLs. By ports, not by addresses: they lie behind names, which a policy does not know. A policy sees the port that a Service's pods listen on,
which may be another than the URL's: so to a Service's namespace every port.
*/ -}}
{{- define "dram.egressTo" -}}
{{- range compact . | uniq }}
{{- $url := urlParse . }}
{{- $port := regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) }}
- ports: [{port: {{ default (ternary "443" "80" (eq $url.scheme "https")) $port }}, protocol: TCP}]
{{- with regexFind "^[a-z0-9-]+\\.[a-z0-9-]+\\.svc([.:]|$)" $url.host }}
- to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ index (splitList "." .) 1 }}}}}]
{{- end }}
{{- if regexMatch "^[a-z0-9-]+(:|$)" $url.host }}
- to: [{podSelector: {}}]
{{- end }}
{{- end }}
{{- end }}

{{- /* Where EKS and GKE hand a pod its identity in the cloud; `.` is whether that is what it has instead of a Secret. */ -}}
{{- define "dram.egressToIdentity" -}}
{{- if . }}
- to: [{ipBlock: {cidr: 169.254.0.0/16}}]
  ports: [{port: 80, protocol: TCP}, {port: 988, protocol: TCP}]
- to: [{ipBlock: {cidr: fd00:ec2::/32}}]
  ports: [{port: 80, protocol: TCP}]
{{- end }}
{{- end }}

{{- /* Namespaces of worker pods that the chart knows, as JSON. */ -}}
{{- define "dram.workerNamespaces" -}}
{{- $known := list .Release.Namespace }}
{{- if .Values.tryout.enabled }}{{ $known = concat $known .Values.tryout.namespaces }}{{ end }}
{{- dict "names" (.Values.namespaces | default $known | uniq) | toJson }}
{{- end }}

{{- /* A policy's head. Of `root`, `part` (the component that it is for) and, where it is not the release's, `namespace`. */ -}}
{{- define "dram.policy" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "dram.name" .root }}-{{ .part }}
  namespace: {{ .namespace | default .root.Release.Namespace }}
  labels: {{- include "dram.partLabels" . | nindent 4 }}
{{- end }}
