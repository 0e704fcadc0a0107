from hmf_networks.cli import main

raise SystemExit(main())
