using System.Collections;

namespace Drover.Orchestrator.CodingAgents;

/// <summary>
/// The environment of agents, gates and set-up, built up from nothing: what is not on the list does not
/// get through, so a new secret of the operator is safe by default.
/// </summary>
/// <param name="Source">The operator's environment.</param>
/// <param name="Pass">Names from <c>env.pass</c> that pass as well.</param>
internal sealed record ContainedEnvironment(IReadOnlyDictionary<string, string> Source, IReadOnlyList<string> Pass)
{
    /// <summary>Values from files that are copied into worktrees, redacted like secrets of the environment.</summary>
    public IReadOnlyList<string> CopiedSecrets { get; init; } = [];

    private static readonly HashSet<string> Names = new(StringComparer.Ordinal)
    {
        "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TERM", "JAVA_HOME", "GOPATH", "CARGO_HOME",
    };

    private static readonly string[] Prefixes = ["LC_", "XDG_", "SSL_CERT_", "DOTNET_", "NUGET_"];

    private static readonly string[] SecretWords = ["KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL", "AUTH"];

    /// <summary>From this process's environment.</summary>
    public static ContainedEnvironment FromProcess(IReadOnlyList<string> pass)
    {
        var source = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (DictionaryEntry entry in Environment.GetEnvironmentVariables())
            source[(string)entry.Key] = (string?)entry.Value ?? "";
        return new(source, pass);
    }

    /// <summary>
    /// The environment of one run: the list of DESIGN 4.3, <see cref="Pass"/>, <paramref name="credentials"/> (an
    /// agent adapter's names; none for gates and set-up), TMPDIR, and the <paramref name="facts"/>, which win.
    /// </summary>
    public Dictionary<string, string> Build(string tmpDir, IReadOnlyCollection<string> credentials, IReadOnlyDictionary<string, string> facts)
    {
        var result = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (var (name, value) in Source)
        {
            if (IsAllowed(name) || Pass.Contains(name, StringComparer.Ordinal) || credentials.Contains(name, StringComparer.Ordinal))
                result[name] = value;
        }
        result["TMPDIR"] = tmpDir;
        foreach (var (name, value) in facts)
            result[name] = value;
        return result;
    }

    /// <summary>
    /// Values that must be redacted from logs: of every variable whose name says so, passed or not (an agent may
    /// find them elsewhere too), of the credentials, and passwords inside URLs such as a proxy's.
    /// </summary>
    public IReadOnlyList<string> SecretValues(IReadOnlyCollection<string> credentials)
    {
        var secrets = new HashSet<string>(CopiedSecrets, StringComparer.Ordinal);
        foreach (var (name, value) in Source)
        {
            if (credentials.Contains(name, StringComparer.Ordinal) || (SoundsSecret(name) && !LooksLikePath(value)))
                secrets.Add(value);
            if (PasswordOf(value) is { } password)
                secrets.UnionWith([password, Uri.UnescapeDataString(password)]);
        }
        secrets.RemoveWhere(value => value.Length < SecretRedactor.ShortestSecret);
        return [.. secrets];
    }

    private static bool IsAllowed(string name) =>
        Names.Contains(name)
        || Prefixes.Any(prefix => name.StartsWith(prefix, StringComparison.Ordinal))
        || name.EndsWith("_PROXY", StringComparison.OrdinalIgnoreCase); // curl and others know the lower-case names only

    private static bool SoundsSecret(string name)
    {
        var words = name.ToUpperInvariant().Split('_');
        return words.Any(word => SecretWords.Any(secret => word.EndsWith(secret, StringComparison.Ordinal)));
    }

    private static bool LooksLikePath(string value) => value.StartsWith('/'); // SSH_AUTH_SOCK, XAUTHORITY, key files

    private static string? PasswordOf(string value)
    {
        var scheme = value.IndexOf("://", StringComparison.Ordinal);
        if (scheme < 0)
            return null;
        var authority = value[(scheme + 3)..].Split('/', 2)[0];
        var at = authority.LastIndexOf('@');
        var colon = authority.IndexOf(':', StringComparison.Ordinal);
        return colon >= 0 && at > colon ? authority[(colon + 1)..at] : null;
    }
}
