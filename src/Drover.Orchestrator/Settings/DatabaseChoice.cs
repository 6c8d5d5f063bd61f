using System.Text.Json;
using Drover.Orchestrator.Backlog;
using Drover.Workflows;

namespace Drover.Orchestrator.Settings;

/// <summary>The database that a command works on.</summary>
/// <remarks><paramref name="Path"/>: the SQLite file, absolute. <paramref name="Source"/>: what decided: <c>--database</c>, a variable's name, or a file.</remarks>
public sealed record DatabaseChoice(string Path, string Source)
{
    /// <summary>The option's name.</summary>
    public const string Option = "--database";
    private static readonly string[] Variables = ["DBOS_SYSTEM_DATABASE_URL", "DBOS_DATABASE_URL", "DROVER_DATABASE_URL"];

    /// <summary>
    /// Finds the database: option, <c>DBOS_SYSTEM_DATABASE_URL</c>, <c>DBOS_DATABASE_URL</c>, <c>DROVER_DATABASE_URL</c>, a live
    /// <c>.dbos/connection.json</c> in the start folder, and the nearest <c>.drover/drover.db</c> upwards. The first that is given wins; it is never
    /// passed over because it cannot be used. A local folder <c>.drover</c> counts before its database exists.
    /// </summary>
    /// <remarks>
    /// <paramref name="option"/>: the value of <c>--database</c>, or null. <paramref name="environment"/>: an empty variable counts as unset.
    /// <paramref name="start"/>: the folder in which the command was started. <paramref name="isAlive"/>: whether a process id is running.
    /// <paramref name="hasBacklog"/>: whether a SQLite file that exists holds at least one task; asked only when another database would hide it.
    /// </remarks>
    /// <exception cref="DroverException">
    /// <see cref="ErrorCode.InvalidInput"/> for an address that this version cannot use, or a local backlog that would be hidden;
    /// <see cref="ErrorCode.NotFound"/> when there is none at all.
    /// </exception>
    public static DatabaseChoice Find(string? option, IReadOnlyDictionary<string, string?> environment, string start, Func<int, bool> isAlive, Func<string, bool> hasBacklog)
    {
        ArgumentNullException.ThrowIfNull(environment);
        ArgumentNullException.ThrowIfNull(isAlive);
        ArgumentNullException.ThrowIfNull(hasBacklog);
        string? local = Local(start);
        if (Address(option, environment, start, isAlive) is not { } found)
        {
            return local is not null ? new DatabaseChoice(local, local)
                : throw new DroverException(ErrorCode.NotFound, $"there is no .drover folder in {start} or above: run `drover init` in a git repository");
        }
        string path = Sqlite(found.Url, found.Source, found.Fix, start);
        if (local is not null && path != local && File.Exists(local) && hasBacklog(local))
            throw new DroverException(ErrorCode.InvalidInput, $"{found.Source} names {path}, which would hide the backlog in {local}: {found.Fix}, or work in a folder without a backlog");
        return new DatabaseChoice(path, found.Source);
    }

    /// <summary>The nearest folder upwards that holds <c>.drover</c>; null when there is none.</summary>
    public static string? ProjectRoot(string start)
    {
        for (string? folder = System.IO.Path.GetFullPath(start); folder is not null; folder = System.IO.Path.GetDirectoryName(folder))
        {
            string drover = System.IO.Path.Combine(folder, ".drover");
            if (File.Exists(System.IO.Path.Combine(drover, "drover.db")) || File.Exists(System.IO.Path.Combine(drover, "config.json")))
                return folder;
        }
        return null;
    }

    private static string? Local(string start) => ProjectRoot(start) is { } root ? System.IO.Path.Combine(root, ".drover", "drover.db") : null;

    private static (string Url, string Source, string Fix)? Address(string? option, IReadOnlyDictionary<string, string?> environment, string start, Func<int, bool> isAlive)
    {
        if (option is not null)
            return (option, Option, $"leave {Option} out");
        foreach (string name in Variables)
        {
            if (environment.GetValueOrDefault(name) is { Length: > 0 } url)
                return (url, name, $"unset {name}");
        }
        string file = System.IO.Path.Combine(System.IO.Path.GetFullPath(start), ".dbos", "connection.json");
        return Live(file, isAlive) is { } live ? (live, file, $"stop the server of {file}") : null;
    }

    // The file outlives its server (older versions never remove it), so an embedded server counts only while its process lives.
    // In external mode the process that wrote it has ended by design.
    private static string? Live(string file, Func<int, bool> isAlive)
    {
        try
        {
            if (new FileInfo(file) is not { Exists: true, Length: <= 64 * 1024 })
                return null;
            using JsonDocument json = JsonDocument.Parse(File.ReadAllBytes(file));
            JsonElement root = json.RootElement;
            string? url = root.GetProperty("databaseUrl").GetString();
            bool external = root.TryGetProperty("mode", out JsonElement mode) && mode.ValueKind == JsonValueKind.String && mode.GetString() == "external";
            return external || (root.TryGetProperty("pid", out JsonElement pid) && pid.TryGetInt32(out int number) && isAlive(number)) ? url : null;
        }
        catch (Exception e) when (e is JsonException or KeyNotFoundException or InvalidOperationException)
        {
            throw new DroverException(ErrorCode.InvalidInput, $"{file} cannot be understood: remove it, or pass `{Option} sqlite:///…`", e);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new DroverException(ErrorCode.InvalidInput, $"{file} cannot be read ({e.Message}): pass `{Option} sqlite:///…`", e);
        }
    }

    private static string Sqlite(string url, string source, string fix, string start)
    {
        // The address itself may hold a password: messages name its source and scheme only.
        int colon = url.IndexOf("://", StringComparison.Ordinal);
        string scheme = colon < 0 ? "" : url[..colon].ToLowerInvariant();
        switch (scheme)
        {
            case "postgresql" or "postgres":
                throw new DroverException(ErrorCode.InvalidInput, $"{source} names a PostgreSQL database, and this version runs on SQLite; {fix} or pass `{Option} sqlite:///…`");
            case "sqlite":
                break;
            case "":
                throw new DroverException(ErrorCode.InvalidInput, $"{source} is not a database address: write sqlite:///file.db (relative) or sqlite:////folder/file.db (absolute)");
            default:
                throw new DroverException(ErrorCode.InvalidInput, $"{source} names a {TextRules.Printable(scheme)}:// database, which Drover does not know; {fix} or pass `{Option} sqlite:///…`");
        }

        string rest = url[(colon + 3)..];
        string file = rest.StartsWith('/') ? rest[1..] : rest;
        if (!rest.StartsWith('/') || file.Length == 0 || file.EndsWith('/') || file.AsSpan().ContainsAny("?#\0\n\r"))
            throw new DroverException(ErrorCode.InvalidInput, $"{source}: '{TextRules.Printable(url)}' is not a SQLite address: write sqlite:///file.db (relative) or sqlite:////folder/file.db (absolute)");
        string path = System.IO.Path.GetFullPath(file, System.IO.Path.GetFullPath(start));
        // Three slashes are relative, as everywhere; but an absolute path with three is a common slip, and must not make a folder in a surprising place.
        if (!System.IO.Path.IsPathRooted(file) && !Directory.Exists(System.IO.Path.GetDirectoryName(path)) && Directory.Exists(System.IO.Path.GetDirectoryName("/" + file)))
            throw new DroverException(ErrorCode.InvalidInput, $"{source}: sqlite:///{TextRules.Printable(file)} is relative and its folder does not exist here: write sqlite:////{TextRules.Printable(file)} for the absolute path");
        return path;
    }
}
